"""What becomes of forms that people filled in: read from Prefect, recorded in the catalog, or shown again with why."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import FlowRunPolicy

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Identity, Request
from prefect_stagegate.operations.workspace import Workspace, open_workspace
from prefect_stagegate.tasks import approval
from prefect_stagegate.tasks.approval import MOST_FORMS, _hear

DIGEST = "sha256:" + "4f9c" * 16
Said = dict[str, str]


@pytest.fixture
def where(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "cache", tmp_path / "catalog", identity=Identity("ada", "declared"))


@pytest.fixture
def request_(where: Workspace) -> Request:
    return where.catalog.put_request("things", DIGEST, "production", "sha256:p", where.identity, after=0)


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Said | None]:
    """The run's forms by key, with what they were filled in with, as Prefect's API has it; None for one that wasn't."""
    shown: dict[str, Said | None] = {}

    def read(key: str, flow_run_id: object) -> Said | None:
        return shown[key.removeprefix("suspended-").removesuffix("-response")]

    monkeypatch.setattr(approval, "read_flow_run_input", read)
    return shown


def run_of(forms: dict[str, Said | None]) -> FlowRun:
    return FlowRun(id=uuid4(), flow_id=uuid4(), empirical_policy=FlowRunPolicy(pause_keys=set(forms)))


def said(name: str, decision: str = "approve", reason: str = "") -> Said:
    return {"name": name, "decision": decision, "reason": reason}


def test_an_answer_is_recorded_and_the_next_form_is_another(
    where: Workspace, request_: Request, forms: dict[str, Said | None]
) -> None:
    first = _hear(where, request_, run_of(forms))
    forms[first.key] = said(" ines ", reason="seen")
    for _ in range(2):  # a run that starts once more finds its answer recorded
        second = _hear(where, request_, run_of(forms))
        assert (second.key != first.key, second.why) == (True, "")
        (given,) = where.catalog.approvals(request_)
        assert (given.approver, given.reason) == (Identity("ines", "prefect-form"), "seen")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (said("ADA "), "asked for it and can't answer"),
        (said("ines", "decline"), "needs a reason"),
        (said("  "), "has no name"),
        (None, ""),
    ],
)
def test_what_cannot_be_recorded_shows_the_form_again_and_says_why(
    where: Workspace, request_: Request, forms: dict[str, Said | None], answer: Said | None, why: str
) -> None:
    first = _hear(where, request_, run_of(forms))
    forms[first.key] = answer
    second = _hear(where, request_, run_of(forms))
    assert second.key != first.key
    assert why in second.why
    assert not where.catalog.approvals(request_)


def test_one_who_answers_a_second_form_the_same_is_told_that_somebody_else_has_to(
    where: Workspace, request_: Request, forms: dict[str, Said | None]
) -> None:
    forms[_hear(where, request_, run_of(forms)).key] = said("ines")
    forms[_hear(where, request_, run_of(forms)).key] = said("Ines")
    assert "somebody else has to answer" in _hear(where, request_, run_of(forms)).why
    assert len(where.catalog.approvals(request_)) == 1


def test_a_form_from_before_an_answer_that_came_by_the_command_is_not_read(
    where: Workspace, request_: Request, forms: dict[str, Said | None]
) -> None:
    forms[_hear(where, request_, run_of(forms)).key] = said("grace", "decline", "no")
    where.catalog.put_approval(request_, Identity("ines", "declared"), approved=True, reason="seen")
    _hear(where, request_, run_of(forms))
    assert [one.approver.name for one in where.catalog.approvals(request_)] == ["ines"]


def test_a_run_gives_up_on_forms_that_never_have_an_answer(
    where: Workspace, request_: Request, forms: dict[str, Said | None]
) -> None:
    for _ in range(MOST_FORMS):
        forms[_hear(where, request_, run_of(forms)).key] = said("ada")
    with pytest.raises(UsageError, match="forms in a row"):
        _hear(where, request_, run_of(forms))
