"""What becomes of forms that people filled in: read from Prefect, recorded in the catalog, or shown again with why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import FlowRunPolicy

from prefect_stagegate.catalog.gate_records import put_wait, read_answers, read_requests
from prefect_stagegate.clock import now
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Approval, ApprovalRequest, Identity, Wait
from prefect_stagegate.tasks._support import approval_forms
from prefect_stagegate.tasks._support.approval_forms import MOST_FORMS, _record_answers
from prefect_stagegate.tasks._support.waking import Woken
from prefect_stagegate.units import digest_text
from prefect_stagegate.workspace import Workspace
from tests.support.gates import put_approval

Said = dict[str, str]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "cache", tmp_path / "catalog", identity=Identity("ada", "declared"))


@pytest.fixture
def request_(workspace: Workspace, tmp_path: Path) -> ApprovalRequest:
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "a.txt").write_text("a")
    sources = [{"url": f"{tmp_path}/things/"}]
    gates = {"production": {"require": ["approval"]}}
    stage(workspace, {"stagegate": 1, "dataset": "things", "sources": sources, "gates": gates})
    check(workspace, "things", "production")
    (request,) = read_requests(workspace.catalog, "things", "production")
    return request


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Said | None]:
    """The run's forms by key, with what they were filled in with, as Prefect's API has it; None for one that wasn't."""
    shown: dict[str, Said | None] = {}

    def read(key: str, flow_run_id: object) -> Said | None:
        return shown[key.removeprefix("suspended-").removesuffix("-response")]

    monkeypatch.setattr(approval_forms, "read_flow_run_input", read)
    return shown


def run_of(forms: dict[str, Said | None]) -> FlowRun:
    return FlowRun(id=uuid4(), flow_id=uuid4(), empirical_policy=FlowRunPolicy(pause_keys=set(forms)))


def said(name: str, decision: str = "approve", reason: str = "") -> Said:
    return {"name": name, "decision": decision, "reason": reason}


def test_an_answer_is_recorded_and_the_next_form_is_another(
    workspace: Workspace, request_: ApprovalRequest, forms: dict[str, Said | None]
) -> None:
    first = _record_answers(workspace, request_, run_of(forms))
    forms[first.key] = said(" ines ", reason="seen")
    for _ in range(2):  # a run that starts once more finds its answer recorded
        second = _record_answers(workspace, request_, run_of(forms))
        assert (second.key != first.key, second.why) == (True, "")
        (given,) = read_answers(workspace.catalog, request_)
        assert (given.approver, given.reason) == (Identity("ines", "prefect-form"), "seen")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (said("ADA "), "made the request and can't answer it"),
        (said("ines", "decline"), "needs a reason"),
        (said("  "), "has no name"),
        (None, ""),
    ],
)
def test_form_is_shown_again_with_why_it_was_not_recorded(
    workspace: Workspace, request_: ApprovalRequest, forms: dict[str, Said | None], answer: Said | None, why: str
) -> None:
    first = _record_answers(workspace, request_, run_of(forms))
    forms[first.key] = answer
    second = _record_answers(workspace, request_, run_of(forms))
    assert second.key != first.key
    assert why in second.why
    assert not read_answers(workspace.catalog, request_)


def test_second_form_of_one_person_asks_for_somebody_else(
    workspace: Workspace, request_: ApprovalRequest, forms: dict[str, Said | None]
) -> None:
    forms[_record_answers(workspace, request_, run_of(forms)).key] = said("ines")
    forms[_record_answers(workspace, request_, run_of(forms)).key] = said("Ines")
    assert "somebody else has to answer" in _record_answers(workspace, request_, run_of(forms)).why
    assert len(read_answers(workspace.catalog, request_)) == 1


def test_form_counts_after_another_person_s_command(
    workspace: Workspace, request_: ApprovalRequest, forms: dict[str, Said | None]
) -> None:
    forms[_record_answers(workspace, request_, run_of(forms)).key] = said("grace", "decline", "no")
    put_approval(workspace.catalog, request_, Identity("ines", "declared"), approved=True, reason="seen")
    for _ in range(2):
        _record_answers(workspace, request_, run_of(forms))
        given = [(answer.approver.name, answer.approved) for answer in read_answers(workspace.catalog, request_)]
        assert given == [("ines", True), ("grace", False)]


def test_form_older_than_the_same_person_s_answer_is_ignored(
    workspace: Workspace, request_: ApprovalRequest, forms: dict[str, Said | None]
) -> None:
    forms[_record_answers(workspace, request_, run_of(forms)).key] = said("Grace", "decline", "no")
    put_approval(workspace.catalog, request_, Identity("grace", "declared"), approved=True, reason="seen again")
    assert not _record_answers(workspace, request_, run_of(forms)).why
    assert [answer.approved for answer in read_answers(workspace.catalog, request_)] == [True]


def test_an_answer_that_adds_nothing_wakes_nobody(
    workspace: Workspace, request_: ApprovalRequest, forms: dict[str, Said | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []

    def wake(waits: Iterable[Wait], given: Approval) -> list[Woken]:
        woken.extend(f"{wait.flow_run}: {given.approver.name}" for wait in waits)
        return []

    monkeypatch.setattr(approval_forms, "wake", wake)
    put_wait(workspace.catalog, request_, "another", now() + timedelta(hours=1))
    forms[_record_answers(workspace, request_, run_of(forms)).key] = said("ines")
    forms[_record_answers(workspace, request_, run_of(forms)).key] = said("ines")
    _record_answers(workspace, request_, run_of(forms))
    assert woken == ["another: ines"]  # else two runs would wake each other without end


@pytest.mark.parametrize("answered", [True, False])
def test_run_does_not_suspend_when_the_answer_came_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    on = (tmp_path / "cache", tmp_path / "catalog")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    here = open_workspace(*on, identity=Identity("ada", "declared"))
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": f"{tmp_path}/data/"}]}
    stage(here, spec | {"gates": {"production": {"require": ["approval"]}}})
    decision = check(here, "things", "production")
    if answered:
        approve(open_workspace(*on, identity=Identity("ines", "declared")), Address("things"), "production")
    suspended: list[object] = []
    monkeypatch.setattr(approval_forms, "_run_of_a_deployment", lambda: run_of({}))
    monkeypatch.setattr(approval_forms, "ensure_lapse_automation", lambda: None)
    monkeypatch.setattr(approval_forms, "suspend_flow_run", lambda **how: suspended.append(how))
    left = approval_forms.ask_for_approval(decision, 60, cache=on[0], catalog=on[1])
    assert (left is None, len(suspended)) == (answered, 0 if answered else 1)


def test_form_of_somebody_outside_the_group_is_shown_again(
    tmp_path: Path, workspace: Workspace, forms: dict[str, Said | None]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": f"{tmp_path}/data/"}]}
    owners = dict.fromkeys(("data", "ai", "infra", "governance"), "ines@example.org")
    stage(
        workspace, spec | {"owners": owners, "gates": {"production": {"require": [{"approval": {"from": ["infra"]}}]}}}
    )
    check(workspace, "things", "production")
    (request,) = read_requests(workspace.catalog, "things", "production")
    forms[_record_answers(workspace, request, run_of(forms)).key] = said("ben")
    assert (
        "ben can't answer for production: not an address of infra"
        in _record_answers(workspace, request, run_of(forms)).why
    )
    assert not read_answers(workspace.catalog, request)


def test_a_form_shows_what_is_decided_about_and_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on = (tmp_path / "cache", tmp_path / "catalog")
    data = tmp_path / "data"
    data.mkdir()
    here = open_workspace(*on, identity=Identity("ada", "declared"))
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": f"{data}/"}]}
    spec["contract"] = {"tables": {"days": {"files": "*.csv", "columns": {"day": "int"}}}}
    first = {"production": {"require": ["nonempty"]}}
    for name, text in (("kept", "day\n1\n"), ("gone", "day\n2\n"), ("grown", "day\n3\n")):
        (data / f"{name}.csv").write_text(text)
    served = stage(here, spec | {"gates": first}).digest
    assert check(here, "things", "production").accepted
    promote(here, Address("things"), "production")
    (data / "gone.csv").unlink()
    (data / "grown.csv").write_text("day\n3\n4\n")
    (data / "new.csv").write_text("day\n5\n")
    asking = spec | {"gates": {"production": {"require": ["nonempty", "approval"]}}}
    proposed = stage(here, asking).digest
    adopt(here, asking, reason="somebody has to look")
    decision = check(here, "things", "production")
    suspended: list[dict[str, Any]] = []
    monkeypatch.setattr(approval_forms, "_run_of_a_deployment", lambda: run_of({}))
    monkeypatch.setattr(approval_forms, "ensure_lapse_automation", lambda: None)
    monkeypatch.setattr(approval_forms, "suspend_flow_run", lambda **how: suspended.append(how))
    approval_forms.ask_for_approval(decision, 60, cache=on[0], catalog=on[1])
    shown = suspended[0]["wait_for_input"]._description
    for part in (
        f"- version: `things@{digest_text(proposed)}`",
        "- requested by: ada",
        "- size: 3 files, 20 B",
        "- rows: 4",
        f"- production serves: `{digest_text(served)}`",
        "1 file added (6 B), 1 file removed (6 B), 1 file changed (8 B)",
        "Who may answer: anybody, except ada, who asked",
    ):
        assert part in shown
    assert "stagegate " not in shown


def test_a_run_gives_up_on_forms_that_never_have_an_answer(
    workspace: Workspace, request_: ApprovalRequest, forms: dict[str, Said | None]
) -> None:
    for _ in range(MOST_FORMS):
        forms[_record_answers(workspace, request_, run_of(forms)).key] = said("ada")
    with pytest.raises(UsageError, match="forms in a row"):
        _record_answers(workspace, request_, run_of(forms))
