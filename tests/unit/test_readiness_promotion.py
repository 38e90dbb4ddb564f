from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from prefect_stagegate.checks.approval import approval
from prefect_stagegate.checks.promotion import Rollback, Soak, rollback, soak
from prefect_stagegate.clock import stamp
from prefect_stagegate.gate import CheckContext, CheckResult
from prefect_stagegate.gate.accepted import Accepted
from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.model import Approval, ApprovalRequest, Identity, Outcome
from prefect_stagegate.testing.contexts import DIGEST, NOW, OTHER_DIGEST, REQUESTER, a_spec, check_context

INFRA = ApprovalParameters(groups=("infra",))


def test_way_back_passes_while_it_is_remembered_then_warns() -> None:
    def answer(age: timedelta) -> Outcome:
        accepted = Accepted("production", OTHER_DIGEST, stamp(NOW - age))
        return rollback(check_context(last_accepted=accepted), Rollback()).outcome

    assert answer(timedelta(days=30)) is Outcome.PASS
    assert answer(timedelta(days=30, seconds=1)) is Outcome.WARN


def test_way_back_that_the_catalog_lost_fails() -> None:
    accepted = Accepted("production", OTHER_DIGEST, stamp(NOW))
    answer = rollback(check_context(last_accepted=accepted, is_in_catalog=lambda _: False), Rollback())
    assert answer.outcome is Outcome.FAIL


def test_first_promotion_needs_no_way_back() -> None:
    answer = rollback(check_context(last_accepted=None), Rollback())
    assert answer.outcome is Outcome.NOT_APPLICABLE
    assert answer.summary == "production has no earlier version to return to"


def test_version_soaks_at_the_gate_below_for_its_time() -> None:
    def answer(stood: timedelta, digest: str = DIGEST, until: str = "") -> CheckResult:
        below = Accepted("pilot", digest, stamp(NOW - stood), until=until)
        return soak(check_context(accepted_below=below), Soak())

    assert answer(timedelta(hours=24)).outcome is Outcome.PASS
    short = answer(timedelta(hours=23))
    assert (short.outcome, short.until) == (Outcome.FAIL, NOW + timedelta(hours=1))
    assert short.findings[0].fix == "Wait until 2026-03-01T04:00Z, then check again."
    assert answer(timedelta(hours=24), OTHER_DIGEST).outcome is Outcome.FAIL
    moved_on = answer(timedelta(hours=24), until=stamp(NOW - timedelta(hours=1)))
    assert (moved_on.outcome, moved_on.until) == (Outcome.FAIL, None)
    assert answer(timedelta(hours=48), until=stamp(NOW - timedelta(hours=24))).outcome is Outcome.PASS
    assert soak(check_context(accepted_below=None), Soak()).outcome is Outcome.FAIL
    assert soak(check_context(target="pilot"), Soak()).outcome is Outcome.NOT_APPLICABLE


def requested(*answers: tuple[str, bool], **changes: Any) -> CheckContext:
    """A question with a recorded request and these answers to it."""
    context = check_context(**changes)
    request = ApprovalRequest("r1", "nycflights", DIGEST, "production", context.gate.policy, REQUESTER, stamp(NOW))
    replies = tuple(Approval("r1", Identity(name, "declared"), agreed, "seen", stamp(NOW)) for name, agreed in answers)
    return replace(context, request=request, approvals=replies)


def test_approval_waits_until_somebody_of_the_group_answers() -> None:
    for context in (check_context(), requested(), requested(("passer-by@example.org", True))):
        answer = approval(context, INFRA)
        assert (answer.outcome, answer.awaiting) == (Outcome.INCONCLUSIVE, ("infra",))
        assert answer.findings[0].fix == f"stagegate approve nycflights@{DIGEST} --to production"
    assert approval(requested(("platform@example.org", True)), INFRA).outcome is Outcome.PASS


def test_each_address_of_a_group_is_somebody() -> None:
    two = ApprovalParameters(groups=("infra",), count=2)
    assert approval(requested(("platform@example.org", True)), two).awaiting == ("infra",)
    both = requested(("platform@example.org", True), ("oncall@example.org", True))
    assert approval(both, two).outcome is Outcome.PASS


def test_one_person_who_answers_twice_is_one() -> None:
    context = requested(("platform@example.org", True), ("PLATFORM@example.org ", True))
    assert approval(context, ApprovalParameters(groups=("infra",), count=2)).outcome is Outcome.INCONCLUSIVE


def test_requester_never_counts_however_the_name_is_written() -> None:
    owners = {"infra": "ana@example.org, oncall@example.org"}
    for name in ("ana@example.org", "Ana@Example.org"):
        assert approval(requested((name, True), spec=a_spec(owners=owners)), INFRA).awaiting == ("infra",)
        assert approval(requested((name, True)), ApprovalParameters()).awaiting == ("anybody",)


def test_group_of_only_the_requester_fails() -> None:
    answer = approval(requested(spec=a_spec(owners={"infra": "ana@example.org"})), INFRA)
    assert (answer.outcome, answer.awaiting) == (Outcome.FAIL, ())


def test_last_answer_of_a_person_counts() -> None:
    changed = requested(("platform@example.org", True), ("platform@example.org", False))
    assert approval(changed, INFRA).outcome is Outcome.FAIL
    back = requested(("platform@example.org", False), ("platform@example.org", True))
    assert approval(back, INFRA).outcome is Outcome.PASS


def test_one_who_declines_is_enough_to_refuse() -> None:
    answer = approval(requested(("platform@example.org", True), ("oncall@example.org", False)), INFRA)
    assert answer.outcome is Outcome.FAIL
    assert "oncall@example.org" in answer.summary
    assert "seen" in answer.findings[0].problem


def test_anybody_but_the_requester_answers_without_a_group() -> None:
    assert approval(requested(("passer-by", True)), ApprovalParameters()).outcome is Outcome.PASS


@pytest.mark.parametrize(
    "other", [{"digest": OTHER_DIGEST}, {"policy": "sha256:" + "0" * 64}, {"target": "pilot"}, {"id": "r2"}]
)
def test_answer_to_another_request_lets_nothing_through(other: dict[str, Any]) -> None:
    context = requested(("platform@example.org", True))
    assert context.request is not None
    changed = replace(context, request=replace(context.request, **other))
    assert approval(changed, INFRA).awaiting == ("infra",)
