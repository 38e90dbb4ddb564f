from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from prefect_stagegate.checks import governance
from prefect_stagegate.checks.governance import License, Owners, Runbook, owner, runbook
from prefect_stagegate.model import Outcome
from prefect_stagegate.testing.contexts import a_spec, check_context
from tests.support.http_servers import Handler, http_server


@contextmanager
def web_server(status: int) -> Iterator[str]:
    class Answering(Handler):
        def do_HEAD(self) -> None:
            self.respond(status)

    with http_server(Answering) as url:
        yield f"{url}/runbook"


def test_owner_asks_for_each_role_that_owns_a_check_of_the_gate() -> None:
    assert owner(check_context(), Owners()).outcome is Outcome.PASS
    context = check_context(spec=a_spec(owners={"data": "data-eng@example.org"}))
    answer = owner(context, Owners())  # data owns schema, nonempty and digest; governance owns approval
    assert (answer.outcome, [finding.subject for finding in answer.findings]) == (Outcome.FAIL, ["owners.governance"])
    assert owner(context, Owners(roles=("data",))).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("license_name", "outcome"),
    [
        ("CC0-1.0", Outcome.PASS),
        ("cc-by-4.0", Outcome.PASS),
        ("CC-BY-NC-4.0", Outcome.FAIL),
        ("cc-by-nd-4.0", Outcome.FAIL),
        ("LicenseRef-Contoso", Outcome.WARN),
        (None, Outcome.WARN),
    ],
)
def test_license_is_allowed_denied_or_unknown(license_name: str | None, outcome: Outcome) -> None:
    assert governance.license(check_context(spec=a_spec(license=license_name)), License()).outcome is outcome


def test_license_lists_can_be_set() -> None:
    context = check_context(spec=a_spec(license="LicenseRef-Contoso"))
    assert governance.license(context, License(allow=("LicenseRef-Contoso",))).outcome is Outcome.PASS
    assert governance.license(context, License(deny=("LicenseRef-",))).outcome is Outcome.FAIL


def test_runbook_need_only_be_named() -> None:
    unreachable = a_spec(runbook="http://127.0.0.1:9/runbook")
    assert runbook(check_context(spec=unreachable), Runbook()).outcome is Outcome.PASS
    assert runbook(check_context(spec=a_spec(runbook=None)), Runbook()).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, Outcome.PASS), (401, Outcome.PASS), (404, Outcome.WARN), (503, Outcome.INCONCLUSIVE)],
)
def test_runbook_link_is_followed_when_asked(status: int, outcome: Outcome) -> None:
    with web_server(status) as link:
        answer = runbook(check_context(spec=a_spec(runbook=link)), Runbook(resolve=True))
    assert answer.outcome is outcome
    assert answer.measured == {"status": status}


def test_runbook_that_nobody_answers_for_is_inconclusive() -> None:
    answer = runbook(check_context(spec=a_spec(runbook="http://127.0.0.1:9/runbook")), Runbook(resolve=True))
    assert answer.outcome is Outcome.INCONCLUSIVE


def test_runbook_that_is_no_link_is_not_followed() -> None:
    answer = runbook(check_context(spec=a_spec(runbook="the green folder")), Runbook(resolve=True))
    assert answer.outcome is Outcome.PASS
