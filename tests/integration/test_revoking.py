"""Evidence that somebody revoked counts no more: exactly that, for everybody, until the check was asked again."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cli import main
from prefect_stagegate.clock import now
from prefect_stagegate.errors import GateFailed, UsageError
from prefect_stagegate.gate.gate import State
from prefect_stagegate.jobs.gating import check as asking
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.gating.revoke import revoke
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.model import Address, Identity
from prefect_stagegate.workspace import Workspace
from tests.support.gates import preview_check
from tests.support.scenario import ADA, INES, Scenario

THINGS, PILOT = Address("things"), Address("things", "pilot")
REQUIRED = ["license", "owner", "lineage", "cache_integrity", "rollback"]
WHY = "it looked at the wrong mount"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gates = {"pilot": {"require": REQUIRED}, "production": {"extends": "pilot", "require": ["digest"]}}
    Scenario(tmp_path, gates=gates).deliver("one")
    return tmp_path


def node(folder: Path, who: Identity = ADA) -> Workspace:
    return open_workspace(folder / "cache", folder / "catalog", identity=who)


def stale(folder: Path, gate: str = "pilot") -> dict[str, str]:
    planned = preview_check(node(folder), THINGS, gate)
    return {
        planned_check.requirement.check: planned_check.reason
        for planned_check in planned
        if planned_check.state is not State.CURRENT
    }


def test_revoked_evidence_ends_until_its_check_runs_again(folder: Path) -> None:
    assert check(node(folder), THINGS, "pilot").accepted
    assert stale(folder) == {}
    ended = revoke(node(folder, INES), THINGS, "cache_integrity", reason=f" {WHY} ")
    assert stale(folder) == {"cache_integrity": f"revoked by ines@example.org (declared) {ended.at[:16]}Z: {WHY}"}
    with pytest.raises(GateFailed, match=r"evidence of cache_integrity no longer counts: revoked by ines.*wrong mount"):
        promote(node(folder), THINGS, "pilot")
    assert check(node(folder), THINGS, "pilot").accepted
    assert stale(folder) == {}
    promote(node(folder), THINGS, "pilot")


def test_runs_repeat_a_revoked_cheap_check_but_no_costly_one(folder: Path) -> None:
    check(node(folder), THINGS, "pilot")
    promote(node(folder), THINGS, "pilot")
    revoke(node(folder), PILOT, "lineage", reason=WHY)
    assert find_ready(node(folder), PILOT).chosen
    revoke(node(folder), PILOT, "cache_integrity", reason=WHY)
    held = find_ready(node(folder), PILOT)
    assert held.chosen is None
    assert held.candidates[0].against_node == ("cache_integrity",)
    check(node(folder), THINGS, "pilot")
    assert find_ready(node(folder), PILOT).chosen


def test_for_one_target_only_what_was_found_out_for_it_ends(folder: Path) -> None:
    check(node(folder), THINGS, "pilot")
    promote(node(folder), THINGS, "pilot")
    check(node(folder), THINGS, "production")
    assert (stale(folder), stale(folder, "production")) == ({}, {})
    revoke(node(folder), THINGS, "rollback", reason=WHY, gate="production")
    assert stale(folder) == {}
    assert set(stale(folder, "production")) == {"rollback"}
    with pytest.raises(UsageError, match=r"The result of .* about .* holds for all targets"):
        revoke(node(folder), THINGS, "license", reason=WHY, gate="production")


def test_check_under_way_does_not_restore_revoked_evidence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(node(folder), THINGS, "pilot")
    revoke(node(folder), THINGS, "lineage", reason="first")
    ask = asking.build_context

    def revoked_meanwhile(*arguments: Any) -> Any:
        context = ask(*arguments)
        revoke(node(folder), THINGS, "license", reason="again")
        return context

    monkeypatch.setattr("prefect_stagegate.jobs.gating.check.build_context", revoked_meanwhile)
    check(node(folder), THINGS, "pilot")
    monkeypatch.undo()
    assert stale(folder).keys() == {"license"}
    with pytest.raises(GateFailed, match="evidence of license no longer counts"):
        promote(node(folder), THINGS, "pilot")


def test_revoked_evidence_of_a_fast_clock_ends_no_later_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "now", lambda: now() + timedelta(days=2))
    check(node(folder), THINGS, "pilot")
    monkeypatch.undo()
    revoke(node(folder), THINGS, "license", reason=WHY)
    assert "license" in stale(folder)
    check(node(folder), THINGS, "pilot")
    assert "license" not in stale(folder)


def test_what_can_t_be_revoked_is_told(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no evidence of license.*no evidence about it at all"):
        revoke(node(folder), THINGS, "license", reason=WHY)
    check(node(folder), THINGS, "pilot")
    with pytest.raises(UsageError, match=r"no evidence of schema.*There is evidence of cache_integrity, license"):
        revoke(node(folder), THINGS, "schema", reason=WHY)
    with pytest.raises(UsageError, match=r"no evidence of licence.*Did you mean 'license'"):
        revoke(node(folder), THINGS, "licence", reason=WHY)
    with pytest.raises(UsageError, match="needs a reason"):
        revoke(node(folder), THINGS, "license", reason=" ")
    revoke(node(folder), THINGS, "license", reason=WHY)
    with pytest.raises(UsageError, match="that still counts"):
        revoke(node(folder), THINGS, "license", reason=WHY)


def test_revocation_shows_who_when_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def do(*words: str) -> str:
        main([*words, "--catalog", str(folder / "catalog"), "--cache", str(folder / "cache"), "--identity", "ines"])
        return capsys.readouterr().out

    check(node(folder), THINGS, "pilot")
    promote(node(folder), THINGS, "pilot")
    forged = "bad\n2026-01-01T00:00:00Z  production   forged\x1b[2J"
    said = do("revoke", "things@pilot", "--check", "lineage", "--reason", forged)
    assert said.splitlines()[0].startswith("evidence of lineage of things@sha256:")
    assert "Next: stagegate check things@sha256:" in said
    for output in (do("show", "things"), do("history", "things"), do("check", "things", "--gate", "pilot", "--plan")):
        (line,) = [line for line in output.splitlines() if "lineage" in line]
        assert "revoked by ines (declared)" in line
        assert r"forged\x1b[2J" in line
    (entry,) = json.loads(do("show", "things", "--json"))["revocations"]
    assert (entry["check"], entry["who"]["name"], entry["reason"]) == ("lineage", "ines", forged)
    adopted, moved, revoked = json.loads(do("history", "things@pilot", "--json"))
    assert [entry["action"] for entry in (adopted, moved, revoked)] == ["adopt", "promote", "revoke"]
    assert revoked["check"] == "lineage"
