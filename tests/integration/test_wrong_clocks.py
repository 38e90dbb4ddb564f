"""Nodes whose clocks are ahead: what they date in the future counts for nothing, neither for nor against a version."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from prefect_stagegate.checks.storage import Volume, cache_volume
from prefect_stagegate.clock import now
from prefect_stagegate.errors import GateFailed
from prefect_stagegate.jobs.gating import check as questions
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, DecisionOutcome, Identity, Outcome
from prefect_stagegate.workspace import Workspace
from tests.support.gates import preview_check

THINGS = Address("things")


@pytest.fixture
def node(tmp_path: Path) -> Workspace:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/data.csv").write_text("one")
    return open_workspace(tmp_path / "cache", tmp_path / "catalog", identity=Identity("ada", "declared"))


def staged(node: Workspace, **changes: object) -> None:
    spec = {
        "stagegate": 1,
        "dataset": "things",
        "license": "CC0-1.0",
        "sources": [{"url": str(node.cache.root.parent / "nas")}],
        "gates": {"pilot": {"require": ["license", {"space": {"warn": 1.0, "fail": 1.0}}]}},
    }
    stage(node, spec | changes)


def check_ahead(node: Workspace, monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> DecisionOutcome:
    with monkeypatch.context() as patched:
        patched.setattr(questions, "now", lambda: now() + ahead)
        return check(node, THINGS, "pilot").outcome


def test_acceptance_from_the_future_is_not_promoted(node: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    staged(node)
    assert check_ahead(node, monkeypatch, timedelta(minutes=2)) is DecisionOutcome.ACCEPTED
    with pytest.raises(GateFailed, match=r"is dated .*, ahead of this node's clock.*Set the clock that is wrong"):
        promote(node, THINGS, "pilot")
    assert check(node, THINGS, "pilot").accepted
    assert promote(node, THINGS, "pilot").ref == "pilot"


def test_acceptance_within_usual_skew_is_promoted(node: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    staged(node)
    check_ahead(node, monkeypatch, timedelta(seconds=20))
    assert promote(node, THINGS, "pilot").ref == "pilot"


@pytest.mark.parametrize("license_name", ["CC0-1.0", "CC-BY-NC-4.0"])
def test_evidence_from_the_future_is_asked_again(
    node: Workspace, monkeypatch: pytest.MonkeyPatch, license_name: str
) -> None:
    """Passing and failing evidence, with an end and without one: `license` has none, `space` has one."""
    staged(node, license=license_name)
    check_ahead(node, monkeypatch, timedelta(minutes=2))
    planned = {planned_check.requirement.check: planned_check for planned_check in preview_check(node, THINGS, "pilot")}
    assert planned["license"].evidence is None
    assert "so a clock is wrong" in planned["license"].reason
    assert planned["space"].evidence is None


def test_failure_from_the_future_ends_no_pass(node: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is ahead failed on its own full disk; the answer of a node whose clock is right stands."""
    staged(node)
    full = Volume(Path("/cache"), total=10, free=-1, floor=0, held=0)
    with monkeypatch.context() as patched:
        patched.setattr(cache_volume, "_compute", lambda _: full)
        assert check_ahead(node, patched, timedelta(minutes=2)) is DecisionOutcome.REFUSED
    decision = check(node, THINGS, "pilot")
    assert decision.accepted
    assert {answer.check: answer.outcome for answer in decision.checks}["space"] is Outcome.PASS
    assert promote(node, THINGS, "pilot").ref == "pilot"
