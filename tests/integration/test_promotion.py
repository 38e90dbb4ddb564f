"""From a staged version to production and back: decisions, approvals, refs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cache.refs import Refs
from prefect_stagegate.catalog import Catalog, RefEntry
from prefect_stagegate.errors import (
    CacheError,
    CorruptRecord,
    GateFailed,
    RefConflict,
    StagegateError,
    UsageError,
    WaitingForApproval,
)
from prefect_stagegate.model import Address, DecisionOutcome, Identity, Outcome
from prefect_stagegate.operations.gating.approve import answer, approve, wait, waiting_runs
from prefect_stagegate.operations.gating.attestations import verify_attestation
from prefect_stagegate.operations.gating.check import check
from prefect_stagegate.operations.gating.policy import adopt
from prefect_stagegate.operations.gating.promote import promote
from prefect_stagegate.operations.gating.reports import report_of
from prefect_stagegate.operations.gating.revoke import revoke
from prefect_stagegate.operations.gating.rollback import rollback
from prefect_stagegate.operations.inspect import history
from prefect_stagegate.operations.staging.stage import stage
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness.records.attest import read_statement
from prefect_stagegate.report import to_text
from tests.support.gates import preview_check, put_approval
from tests.support.scenario import ADA, INES, Scenario

THINGS = Address("things")
GATES = {
    "pilot": {"require": ["license", "owner"]},
    "production": {
        "extends": "pilot",
        "require": ["digest", "rollback", {"approval": {"count": 1, "from": ["infra"]}}],
    },
}


@pytest.fixture
def place(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, gates=GATES)


def to_pilot(place: Scenario) -> None:
    place.promote("pilot")


def to_production(place: Scenario) -> None:
    place.promote("pilot", "production")


def test_nothing_is_promoted_that_its_gate_was_not_asked_about(place: Scenario) -> None:
    place.deliver("one")
    with pytest.raises(GateFailed, match="never checked"):
        promote(place.node(), THINGS, "pilot")


def test_promotion_moves_the_catalog_s_ref_and_the_node_s_copy(place: Scenario) -> None:
    version = place.deliver("one")
    to_pilot(place)
    here = place.node()
    assert here.catalog.resolve(Address("things", "pilot")) == version.digest == here.cache.refs.get("things", "pilot")
    (entry,) = history(here, Address("things", "pilot"))
    assert entry.attestation["subject"][0]["digest"]["sha256"] == version.digest.removeprefix("sha256:")


def test_production_waits_for_somebody_else_of_the_right_group(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    assert check(place.node(), THINGS, "production").outcome is DecisionOutcome.WAITING
    with pytest.raises(WaitingForApproval, match="approve"):
        promote(place.node(), THINGS, "production")
    with pytest.raises(UsageError, match="ada made the request"):
        approve(place.node(), THINGS, "production", reason="me")
    with pytest.raises(UsageError, match="made the request"):
        approve(place.node(Identity(" Ada", "declared")), THINGS, "production", reason="me again")
    bob = place.node(Identity("bob", "declared"))
    with pytest.raises(UsageError, match=r"bob can't answer .*not an address of infra.*ines@example.org"):
        approve(bob, THINGS, "production", reason="not my group")
    assert check(bob, THINGS, "production").outcome is DecisionOutcome.WAITING
    with pytest.raises(WaitingForApproval, match="Somebody else than ada answers"):
        promote(bob, THINGS, "production")
    approve(place.node(INES), THINGS, "production", reason="seen")
    assert check(place.node(), THINGS, "production").accepted
    assert promote(place.node(), THINGS, "production").previous == ""


def test_decline_fails_the_gate_with_its_reason(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    with pytest.raises(UsageError, match="needs a reason"):
        approve(place.node(INES), THINGS, "production", approved=False)
    approve(place.node(INES), THINGS, "production", approved=False, reason="March looks wrong")
    decision = check(place.node(), THINGS, "production")
    assert decision.outcome is DecisionOutcome.REFUSED
    approval = next(one for one in decision.checks if one.check == "approval")
    assert "March looks wrong" in approval.summary + "".join(finding.problem for finding in approval.findings)


def test_answer_that_cannot_count_is_refused_and_not_recorded(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    (request,) = place.node().catalog.requests("things", "production")
    for who in (ADA, Identity("bob", "declared")):
        with pytest.raises(UsageError, match="can't answer"):
            approve(place.node(who), THINGS, "production", reason="seen")
    assert not place.node().catalog.approvals(request)


def test_answer_to_a_policy_of_before_is_refused(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    stricter = {**GATES, "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 2}}]}}
    adopt(place.node(), place.spec(gates=stricter), reason="two must agree")
    with pytest.raises(UsageError, match=r"ended: the policy of production changed since.*records a new request"):
        approve(place.node(INES), THINGS, "production", reason="seen")


def test_answer_about_a_target_that_moved_on_is_refused(place: Scenario) -> None:
    asked = place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    place.deliver("two")
    to_production(place)
    with pytest.raises(UsageError, match="ended: production moved since"):
        approve(place.node(INES), Address("things", asked.digest), "production", reason="late")


def test_answer_to_a_request_that_was_made_anew_is_refused(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    decision = check(place.node(), THINGS, "production")
    request, _ = wait(place.node(), decision, "run-1", timedelta(seconds=-1))
    check(place.node(), THINGS, "production")
    with pytest.raises(UsageError, match="ended: ada made a newer request at"):
        answer(place.node(INES), request, approved=True, reason="seen")


def test_attestation_lists_only_answers_that_counted(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    (request,) = place.node().catalog.requests("things", "production")
    put_approval(place.node().catalog, request, Identity("bob", "declared"), approved=True, reason="not my group")
    approve(place.node(INES), THINGS, "production", reason="seen")
    assert check(place.node(), THINGS, "production").accepted
    statement = place.node().catalog.attestation("things", request.digest, "production")
    assert [one.approver.name for one in read_statement(statement or {}).approvals] == [INES.name]


def test_promote_after_an_approval_asks_for_a_check(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    approve(place.node(INES), THINGS, "production", reason="seen")
    with pytest.raises(
        GateFailed, match=r"approved by ines.* has to be checked again: the gate has not decided.*stagegate check"
    ):
        promote(place.node(), THINGS, "production")
    revoke(place.node(), Address("things", "pilot"), "license", reason="the wrong one was read")
    with pytest.raises(GateFailed, match=r"has to be checked again: no longer current: license \(revoked by ada"):
        promote(place.node(), THINGS, "production")


def test_promote_after_a_decline_says_that_the_version_ended(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    approve(place.node(INES), THINGS, "production", approved=False, reason="March looks wrong")
    for _ in range(2):
        with pytest.raises(
            GateFailed, match=r"can't go to production: .*ines.* declined: March looks wrong.*turn of ada.*new version"
        ):
            promote(place.node(), THINGS, "production")
        assert check(place.node(), THINGS, "production").outcome is DecisionOutcome.REFUSED


def test_request_lapses_with_the_last_run_that_waited(place: Scenario) -> None:
    asked = place.deliver("one")
    to_pilot(place)
    decision = check(place.node(), THINGS, "production")
    here = place.node()
    request, _ = wait(here, decision, "run-1", timedelta(seconds=-1))
    with pytest.raises(UsageError, match=r"lapsed at .* records a new request"):
        approve(place.node(INES), THINGS, "production", reason="too late")
    wait(here, decision, "run-2", timedelta(minutes=1))
    newer = here.catalog.awaited("things", "production", "run-2")
    assert newer is not None
    assert (newer.id, newer.digest) == (here.catalog.requests("things", "production")[-1].id, asked.digest)
    assert newer.id != request.id
    assert here.catalog.awaited("things", "production", "run-1") == request
    assert [one.flow_run for one in waiting_runs(here, newer)] == ["run-2"]
    assert approve(place.node(INES), THINGS, "production", reason="seen").request == newer.id


def test_decline_can_be_changed_after_the_run_ended(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    decision = check(place.node(), THINGS, "production")
    wait(place.node(), decision, "run-1", timedelta(seconds=1))
    approve(place.node(INES), THINGS, "production", approved=False, reason="March looks wrong")
    time.sleep(1)
    assert not check(place.node(), THINGS, "production").accepted
    approve(place.node(INES), THINGS, "production", reason="March was so")
    assert check(place.node(), THINGS, "production").accepted


def test_approved_version_is_promoted_though_a_newer_arrived(place: Scenario) -> None:
    asked = place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    newer = place.deliver("two")
    approve(place.node(INES), THINGS, "production", reason="seen")
    assert check(place.node(), THINGS, "production").digest == asked.digest != newer.digest
    assert promote(place.node(), THINGS, "production").digest == asked.digest


def test_an_approval_lets_no_other_version_through(place: Scenario) -> None:
    place.deliver("one")
    to_production(place)
    place.deliver("two")
    to_pilot(place)
    assert check(place.node(), THINGS, "production").outcome is DecisionOutcome.WAITING


def test_approval_ends_when_production_moves_on(place: Scenario) -> None:
    asked = place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    approve(place.node(INES), THINGS, "production", reason="seen")
    place.deliver("two")
    to_production(place)
    older = Address("things", asked.digest)
    assert check(place.node(), older, "production").outcome is DecisionOutcome.WAITING


def test_what_pilot_accepted_goes_on_though_pilot_moved_on(place: Scenario) -> None:
    asked = place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    place.deliver("two")
    to_pilot(place)
    older = Address("things", asked.digest)
    approve(place.node(INES), older, "production", reason="seen")
    assert check(place.node(), older, "production").accepted
    assert promote(place.node(), older, "production").digest == asked.digest


def test_production_takes_only_what_pilot_accepted(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    newer = place.deliver("two")
    decision = check(place.node(), Address("things", newer.digest), "production")
    assert decision.outcome is DecisionOutcome.REFUSED
    assert [one.check for one in decision.checks if one.outcome is Outcome.FAIL] == ["digest"]
    text = to_text(report_of(place.node(), decision))
    version = f"things@{newer.digest}"
    assert f"stagegate check {version} --gate pilot && stagegate promote {version} --to pilot" in text
    # No request is recorded before the other checks pass, so an answer would be refused.
    assert "nobody was asked yet" in text
    assert "stagegate approve" not in text


def test_a_changed_policy_ends_the_acceptance(place: Scenario) -> None:
    place.deliver("one")
    assert check(place.node(), THINGS, "pilot").accepted
    stricter = {"pilot": {"require": ["license", "owner", "runbook"]}}
    assert "runbook is required" in place.deliver("one", gates=stricter).proposed[0].difference
    adopt(place.node(), place.spec(gates=stricter), reason="a runbook is needed")
    with pytest.raises(GateFailed, match="policy of pilot changed"):
        promote(place.node(), THINGS, "pilot")


def test_an_answer_that_came_after_the_acceptance_ends_it(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    approve(place.node(INES), THINGS, "production", reason="seen")
    assert check(place.node(), THINGS, "production").accepted
    approve(place.node(INES), THINGS, "production", approved=False, reason="March looks wrong after all")
    with pytest.raises(GateFailed, match="approval depends on changed since: answers"):
        promote(place.node(), THINGS, "production")


def test_version_that_the_gate_below_withdrew_is_not_promoted(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    bad = place.deliver("two")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    approve(place.node(INES), THINGS, "production", reason="seen")
    assert check(place.node(), THINGS, "production").accepted
    rollback(place.node(), Address("things", "pilot"), reason="loss went up")
    with pytest.raises(GateFailed, match="digest depends on changed since: below"):
        promote(place.node(), Address("things", bad.digest), "production")


def test_promotion_works_from_another_node_than_the_checks(place: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    place.deliver("one", gates={"pilot": {"require": ["license", {"space": {"warn": 1.0, "fail": 1.0}}]}})
    assert check(place.node(), THINGS, "pilot").accepted
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert promote(place.node(cache="other"), THINGS, "pilot").ref == "pilot"


def test_the_newest_decision_counts(place: Scenario) -> None:
    place.deliver("one")
    assert check(place.node(), THINGS, "pilot").accepted
    place.deliver("one", license="CC-BY-NC-4.0")
    assert not check(place.node(), THINGS, "pilot").accepted
    with pytest.raises(StagegateError):
        promote(place.node(), THINGS, "pilot")


def test_check_that_can_t_run_is_inconclusive_and_never_passes(place: Scenario) -> None:
    place.deliver("one", gates={"pilot": {"require": ["license", "dcgm"]}})
    decision = check(place.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.INCONCLUSIVE
    with pytest.raises(StagegateError) as caught:
        promote(place.node(), THINGS, "pilot")
    assert caught.value.exit_code == 3


def test_evidence_that_still_holds_is_used_again(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    planned = {one.requirement.check: one.state for one in preview_check(place.node(), THINGS, "production")}
    assert planned["license"] == "current"
    assert planned["approval"] == "missing"
    first = check(place.node(), THINGS, "pilot")
    assert check(place.node(), THINGS, "pilot").checks == first.checks


def test_way_back_shows_when_its_version_was_accepted(place: Scenario) -> None:
    place.deliver("one")
    to_production(place)
    accepted = place.node().catalog.history("things", "production")[-1]
    place.deliver("two")
    to_production(place)
    rollback(place.node(), Address("things", "production"), reason="loss went up")
    place.deliver("three")
    decision = check(place.node(), Address("things", place.promote("pilot")), "production")
    (way_back,) = [evidence for evidence in decision.checks if evidence.check == "rollback"]
    assert way_back.measured["version"] == accepted.digest
    assert way_back.measured["accepted_at"] == read_statement(accepted.attestation).decision.at


def test_rollback_returns_to_the_last_good_version(place: Scenario) -> None:
    good = place.deliver("one")
    to_production(place)
    bad = place.deliver("two")
    to_production(place)
    moved = rollback(place.node(), Address("things", "production"), reason="loss went up")
    assert (moved.digest, moved.previous) == (good.digest, bad.digest)
    assert place.node().cache.refs.get("things", "production") == good.digest
    with pytest.raises(GateFailed, match=r"withdrawn from production.*loss went up"):
        promote(place.node(), Address("things", bad.digest), "production")
    with pytest.raises(GateFailed, match="its acceptance is older than the withdrawal"):
        promote(place.node(), Address("things", bad.digest), "production", reinstate=True)
    assert check(place.node(), Address("things", bad.digest), "production").outcome is DecisionOutcome.WAITING
    approve(place.node(INES), Address("things", bad.digest), "production", reason="mended")
    assert check(place.node(), Address("things", bad.digest), "production").accepted
    assert promote(place.node(), Address("things", bad.digest), "production", reinstate=True).digest == bad.digest
    assert check(place.node(), Address("things", bad.digest), "production").accepted  # where it is, it stays approved


def test_a_rollback_withdraws_what_the_ref_names_when_it_moves(
    place: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = place.deliver("one")
    to_pilot(place)
    place.deliver("two")
    to_pilot(place)
    bad = place.deliver("three")
    assert check(place.node(), THINGS, "pilot").accepted
    here, history = place.node(), Catalog.history

    def promoted_meanwhile(catalog: Catalog, dataset: str, ref: str) -> list[RefEntry]:
        monkeypatch.undo()
        promote(place.node(), THINGS, "pilot")
        return history(catalog, dataset, ref)

    monkeypatch.setattr(Catalog, "history", promoted_meanwhile)
    moved = rollback(here, Address("things", "pilot"), to=good.digest, reason="loss went up")
    assert moved.previous == bad.digest
    with pytest.raises(GateFailed, match="withdrawn"):
        promote(place.node(), Address("things", bad.digest), "pilot")


def test_the_node_s_copy_ends_where_the_catalog_s_ref_does(place: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    good = place.deliver("one")
    to_pilot(place)
    place.deliver("two")
    assert check(place.node(), THINGS, "pilot").accepted
    put = Refs.put

    def rolled_back_meanwhile(refs: Refs, dataset: str, ref: str, digest: str) -> None:
        monkeypatch.undo()
        rollback(place.node(), Address("things", "pilot"), reason="loss went up")
        put(refs, dataset, ref, digest)

    monkeypatch.setattr(Refs, "put", rolled_back_meanwhile)
    promote(place.node(), THINGS, "pilot")
    assert place.node().cache.refs.get("things", "pilot") == good.digest


def test_a_move_stands_though_this_node_cannot_write_its_copy(
    place: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    version = place.deliver("one")
    assert check(place.node(), THINGS, "pilot").accepted

    def refuse(*_: object) -> None:
        raise CacheError("the volume is read-only")

    monkeypatch.setattr(Refs, "put", refuse)
    assert promote(place.node(), THINGS, "pilot").digest == version.digest
    assert "this node's copy did not" in caplog.text


def test_latest_is_not_rolled_back(place: Scenario) -> None:
    place.deliver("one")
    place.deliver("two")
    with pytest.raises(UsageError, match="names no target"):
        rollback(place.node(), Address("things", "latest"), reason="loss went up")


def test_there_is_nothing_to_roll_back_to_at_first(place: Scenario) -> None:
    place.deliver("one")
    to_pilot(place)
    with pytest.raises(UsageError, match="no earlier version"):
        rollback(place.node(), Address("things", "pilot"), reason="why not")
    with pytest.raises(UsageError, match="needs a reason"):
        rollback(place.node(), Address("things", "pilot"), reason=" ")


def test_of_two_promoters_at_once_one_wins_and_the_other_is_told(
    place: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.deliver("one")
    assert check(place.node(), THINGS, "pilot").accepted
    one, two = place.node(Identity("one", "declared")), place.node(Identity("two", "declared"))
    # Both read the head before either moves it.
    heads = {id(workspace): workspace.catalog.ref("things", "pilot") for workspace in (one, two)}

    def move(workspace: Workspace) -> bool:
        version, decision = workspace.catalog.resolve(THINGS), workspace.catalog.attestation
        statement = decision("things", version, "pilot")
        try:
            workspace.catalog.move_ref(
                "things",
                "pilot",
                version,
                head=heads[id(workspace)],
                action="promote",  # type: ignore[arg-type]
                who=workspace.identity,
                attestation=statement,
            )
        except RefConflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(move, (one, two))) == [False, True]


def test_the_log_s_attestation_says_who_asked_and_who_approved(place: Scenario) -> None:
    place.deliver("one")
    to_production(place)
    (entry,) = history(place.node(), Address("things", "production"))
    told = entry.attestation["predicate"]["stagegate"]
    assert told["request"]["requester"]["name"] == "ada"
    assert [one["approver"]["name"] for one in told["approvals"]] == [INES.name]


def test_check_that_fails_during_a_promotion_withdraws_it(place: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever checks finds nothing to withdraw yet, and whoever promotes has read the acceptance already."""
    place.deliver("one")
    assert check(place.node(), THINGS, "pilot").accepted
    move = Catalog.move_ref

    def fail_first(catalog: Catalog, *arguments: Any, **named: Any) -> RefEntry:
        monkeypatch.setattr(Catalog, "move_ref", move)
        stage(place.node(), place.spec(license="CC-BY-NC-4.0"))
        assert check(place.node(), THINGS, "pilot").outcome is DecisionOutcome.REFUSED
        return catalog.move_ref(*arguments, **named)

    monkeypatch.setattr(Catalog, "move_ref", fail_first)
    with pytest.raises(GateFailed, match="failed its gate while it was promoted, and was withdrawn"):
        promote(place.node(), THINGS, "pilot")
    log = history(place.node(), Address("things", "pilot"))
    assert [entry.action for entry in log] == ["promote", "withdraw"]


@pytest.mark.parametrize("target", ["../../../x", "", "Production", "a/b"])
def test_a_target_s_name_leads_nowhere_else_in_the_catalog(place: Scenario, target: str) -> None:
    place.deliver("one")
    with pytest.raises(UsageError, match="is not a target's name"):
        approve(place.node(INES), THINGS, target)
    with pytest.raises(UsageError, match="is not a target's name"):
        verify_attestation(place.node(), "things", gate=target or "/")


def test_forged_request_writes_nothing_outside_the_catalog(place: Scenario) -> None:
    """Whoever may write to the catalog must not write, by the hand of whoever answers, to what lies beside it."""
    place.deliver("one")
    to_pilot(place)
    check(place.node(), THINGS, "production")
    workspace = place.node()
    (record,) = Path(workspace.catalog.url).rglob("request.json")
    record.chmod(0o600)
    request = workspace.catalog.requests("things", "production")[0]
    record.write_text(record.read_text().replace(request.id, "../../../../../../out"))
    with pytest.raises(CorruptRecord, match="holds the request"):
        approve(place.node(INES), THINGS, "production", reason="seen")
    assert not (Path(workspace.catalog.url).parent / "out").exists()
