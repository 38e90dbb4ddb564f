"""From a staged version to production and back: decisions, approvals, refs."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cache.ref_copies import Refs
from prefect_stagegate.catalog import Catalog, RefEntry
from prefect_stagegate.catalog.gate_records import awaited_request, newest_attestation, read_answers, read_requests
from prefect_stagegate.errors import (
    CacheError,
    CorruptRecord,
    GateFailed,
    RefConflict,
    StagegateError,
    UsageError,
    WaitingForApproval,
)
from prefect_stagegate.gate.records.attest import decision_of, read_statement
from prefect_stagegate.jobs.gating.approve import answer, approve, wait, waiting_runs
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.revoke import revoke
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.inspect import history
from prefect_stagegate.jobs.review.attestations import verify_attestation
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, DecisionOutcome, Identity, Outcome
from prefect_stagegate.workspace import Workspace
from tests.support.gates import preview_check, put_approval
from tests.support.renderings import to_text
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
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, gates=GATES)


def to_pilot(scenario: Scenario) -> None:
    scenario.promote("pilot")


def to_production(scenario: Scenario) -> None:
    scenario.promote("pilot", "production")


def test_nothing_is_promoted_that_its_gate_was_not_asked_about(scenario: Scenario) -> None:
    scenario.deliver("one")
    with pytest.raises(GateFailed, match="never checked") as refused:
        promote(scenario.node(), THINGS, "pilot")
    assert refused.value.dataset == "things"


def test_refusal_names_its_dataset_and_why_each_check_failed(scenario: Scenario) -> None:
    scenario.deliver("one", license="CC-BY-NC-4.0", owners={"infra": INES.name})
    check(scenario.node(), THINGS, "pilot")
    why = r"refused things@.*: license \(CC-BY-NC-4.0 is denied\), owner \(no address is set for governance\)$"
    with pytest.raises(GateFailed) as refused:
        promote(scenario.node(), THINGS, "pilot")
    assert re.search(why, refused.value.message)
    assert refused.value.dataset == "things"


def test_steps_after_a_refusal_lead_to_an_acceptance(scenario: Scenario) -> None:
    digest = scenario.deliver("one", license="CC-BY-NC-4.0", owners={"infra": INES.name}).digest
    stages = "Stage the repaired data or spec with `stagegate stage SPEC`."
    adopts = "If that proposes another policy, adopt it: `stagegate policy adopt SPEC --reason TEXT`."
    refused = report_of(scenario.node(), check(scenario.node(), THINGS, "pilot"))
    assert refused.steps[-3:] == (stages, adopts, "stagegate check things@latest --gate pilot")
    assert scenario.stage().proposed == ()
    to_pilot(scenario)
    adopt(scenario.node(), scenario.spec(owners={}), reason="by mistake")
    refused = report_of(scenario.node(), check(scenario.node(), THINGS, "pilot"))
    assert refused.steps[-3:] == (stages, adopts, f"stagegate check things@{digest} --gate pilot")
    assert scenario.stage().proposed
    assert not check(scenario.node(), THINGS, "pilot").accepted
    adopt(scenario.node(), scenario.spec(), reason="owners are known")
    assert check(scenario.node(), Address("things", digest), "pilot").accepted


def test_refused_version_was_judged_and_never_accepted(scenario: Scenario) -> None:
    scenario.deliver("one", license="CC-BY-NC-4.0")
    check(scenario.node(), THINGS, "pilot")
    adopt(scenario.node(), scenario.spec(gates={"pilot": {"require": ["license"]}}), reason="owners are known")
    with pytest.raises(GateFailed, match=r"The policy of pilot changed since things@.* was judged") as refused:
        promote(scenario.node(), THINGS, "pilot")
    assert refused.value.dataset == "things"


def test_promotion_moves_the_catalog_s_ref_and_the_node_s_copy(scenario: Scenario) -> None:
    version = scenario.deliver("one")
    to_pilot(scenario)
    here = scenario.node()
    assert here.catalog.resolve(Address("things", "pilot")) == version.digest == here.cache.refs.get("things", "pilot")
    (entry,) = history(here, Address("things", "pilot"))
    assert entry.attestation["subject"][0]["digest"]["sha256"] == version.digest.removeprefix("sha256:")


def test_production_waits_for_somebody_else_of_the_right_group(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    assert check(scenario.node(), THINGS, "production").outcome is DecisionOutcome.WAITING
    with pytest.raises(WaitingForApproval, match="approve"):
        promote(scenario.node(), THINGS, "production")
    with pytest.raises(UsageError, match="ada made the request"):
        approve(scenario.node(), THINGS, "production", reason="me")
    with pytest.raises(UsageError, match="made the request"):
        approve(scenario.node(Identity(" Ada", "declared")), THINGS, "production", reason="me again")
    bob = scenario.node(Identity("bob", "declared"))
    with pytest.raises(UsageError, match=r"bob can't answer .*not an address of infra.*ines@example.org"):
        approve(bob, THINGS, "production", reason="not my group")
    assert check(bob, THINGS, "production").outcome is DecisionOutcome.WAITING
    with pytest.raises(WaitingForApproval, match="Somebody else than ada answers"):
        promote(bob, THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    assert check(scenario.node(), THINGS, "production").accepted
    assert promote(scenario.node(), THINGS, "production").previous == ""


def test_version_that_its_target_serves_waits_for_no_approval(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_production(scenario)
    with pytest.raises(UsageError, match=r"production serves things@sha256:.* already") as served:
        approve(scenario.node(INES), THINGS, "production", reason="again")
    assert served.value.hint == "What waits for an approval to production: nothing."


def test_approval_promotes_in_one_command(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    digest = scenario.deliver("one").digest
    to_pilot(scenario)
    approving = ("approve", "things", "--to", "production", "--promote")
    assert scenario.run("check", "things", "--gate", "production") == 4
    assert scenario.run(*approving, "--decline", "--reason", "no", identity=INES.name) == 2
    capsys.readouterr()
    assert scenario.run(*approving, identity=INES.name) == 0
    assert f"things@production → {digest}" in capsys.readouterr().out
    scenario.deliver("two", license="CC-BY-NC-4.0")
    scenario.stage()
    to_pilot(scenario)
    assert scenario.run("check", "things", "--gate", "production") == 4
    scenario.stage(license="CC-BY-NC-4.0")  # refused from now on
    assert scenario.run(*approving, identity=INES.name) == 1
    assert scenario.head("production") == digest


def test_requester_is_not_told_to_take_another_name(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    scenario.run("check", "things", "--gate", "production")
    assert scenario.run("approve", "things", "--to", "production") == 2
    told = capsys.readouterr().err
    assert "made the request and can't answer it" in told
    assert "--identity" not in told


def test_decline_fails_the_gate_with_its_reason(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    with pytest.raises(UsageError, match="needs a reason"):
        approve(scenario.node(INES), THINGS, "production", approved=False)
    approve(scenario.node(INES), THINGS, "production", approved=False, reason="March looks wrong")
    decision = check(scenario.node(), THINGS, "production")
    assert decision.outcome is DecisionOutcome.REFUSED
    approval = next(result for result in decision.checks if result.check == "approval")
    assert "March looks wrong" in approval.summary + "".join(finding.problem for finding in approval.findings)


def test_answer_that_cannot_count_is_refused_and_not_recorded(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    (request,) = read_requests(scenario.node().catalog, "things", "production")
    for who in (ADA, Identity("bob", "declared")):
        with pytest.raises(UsageError, match="can't answer"):
            approve(scenario.node(who), THINGS, "production", reason="seen")
    assert not read_answers(scenario.node().catalog, request)


def test_answer_names_its_version_where_several_wait(scenario: Scenario) -> None:
    """Whoever looked at one version must not approve another that was requested meanwhile."""
    first, second = (scenario.deliver(text) for text in ("one", "two"))
    for version in (first, second):
        address = Address("things", version.digest)
        check(scenario.node(), address, "pilot")
        promote(scenario.node(), address, "pilot")
        check(scenario.node(), address, "production")
    ines = scenario.node(INES)
    with pytest.raises(UsageError, match=f"2 versions of things wait .*the newest request is for.*{second.digest}"):
        approve(ines, THINGS, "production", reason="seen")
    answered = approve(ines, Address("things", first.digest), "production", reason="seen")
    (request,) = [each for each in read_requests(ines.catalog, "things", "production") if each.digest == first.digest]
    assert answered.request == request.id
    assert approve(ines, THINGS, "production", reason="seen").request != request.id


def test_answer_to_a_policy_of_before_is_refused(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    stricter = {**GATES, "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 2}}]}}
    adopt(scenario.node(), scenario.spec(gates=stricter), reason="two must agree")
    with pytest.raises(UsageError, match=r"ended: the policy of production changed since.*records a new request"):
        approve(scenario.node(INES), THINGS, "production", reason="seen")


def test_answer_about_a_target_that_moved_on_is_refused(scenario: Scenario) -> None:
    staged = scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    scenario.deliver("two")
    to_production(scenario)
    with pytest.raises(UsageError, match="ended: production moved since"):
        approve(scenario.node(INES), Address("things", staged.digest), "production", reason="late")


def test_answer_to_a_request_that_was_made_anew_is_refused(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    decision = check(scenario.node(), THINGS, "production")
    request, _ = wait(scenario.node(), decision, "run-1", timedelta(seconds=-1))
    check(scenario.node(), THINGS, "production")
    with pytest.raises(UsageError, match="ended: ada made a newer request at"):
        answer(scenario.node(INES), request, approved=True, reason="seen")


def test_attestation_lists_only_answers_that_counted(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    (request,) = read_requests(scenario.node().catalog, "things", "production")
    put_approval(scenario.node().catalog, request, Identity("bob", "declared"), approved=True, reason="not my group")
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    assert check(scenario.node(), THINGS, "production").accepted
    statement = newest_attestation(scenario.node().catalog, "things", request.digest, "production")
    assert [approval.approver.name for approval in read_statement(statement or {}).approvals] == [INES.name]


def test_promote_after_an_approval_asks_for_a_check(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    with pytest.raises(
        GateFailed, match=r"approved by ines.* has to be checked again: the gate has not decided.*stagegate check"
    ):
        promote(scenario.node(), THINGS, "production")
    revoke(scenario.node(), Address("things", "pilot"), "license", reason="the wrong one was read")
    with pytest.raises(GateFailed, match=r"has to be checked again: no longer current: license \(revoked by ada"):
        promote(scenario.node(), THINGS, "production")


def test_promote_after_a_decline_says_that_the_version_ended(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", approved=False, reason="March looks wrong")
    for _ in range(2):
        with pytest.raises(
            GateFailed, match=r"can't go to production: .*ines.* declined: March looks wrong.*turn of ada.*new version"
        ):
            promote(scenario.node(), THINGS, "production")
        assert check(scenario.node(), THINGS, "production").outcome is DecisionOutcome.REFUSED


def test_request_lapses_with_the_last_run_that_waited(scenario: Scenario) -> None:
    staged = scenario.deliver("one")
    to_pilot(scenario)
    decision = check(scenario.node(), THINGS, "production")
    here = scenario.node()
    request, _ = wait(here, decision, "run-1", timedelta(seconds=-1))
    with pytest.raises(UsageError, match=r"lapsed at .* records a new request"):
        approve(scenario.node(INES), THINGS, "production", reason="too late")
    wait(here, decision, "run-2", timedelta(minutes=1))
    newer = awaited_request(here.catalog, "things", "production", "run-2")
    assert newer is not None
    assert (newer.id, newer.digest) == (read_requests(here.catalog, "things", "production")[-1].id, staged.digest)
    assert newer.id != request.id
    assert awaited_request(here.catalog, "things", "production", "run-1") == request
    assert [run.flow_run for run in waiting_runs(here, newer)] == ["run-2"]
    assert approve(scenario.node(INES), THINGS, "production", reason="seen").request == newer.id


def test_decline_can_be_changed_after_the_run_ended(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    decision = check(scenario.node(), THINGS, "production")
    wait(scenario.node(), decision, "run-1", timedelta(seconds=1))
    approve(scenario.node(INES), THINGS, "production", approved=False, reason="March looks wrong")
    time.sleep(1)
    assert not check(scenario.node(), THINGS, "production").accepted
    approve(scenario.node(INES), THINGS, "production", reason="March was so")
    assert check(scenario.node(), THINGS, "production").accepted


def test_approved_version_is_promoted_though_a_newer_arrived(scenario: Scenario) -> None:
    staged = scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    newer = scenario.deliver("two")
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    assert check(scenario.node(), THINGS, "production").digest == staged.digest != newer.digest
    assert promote(scenario.node(), THINGS, "production").digest == staged.digest


def test_an_approval_lets_no_other_version_through(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_production(scenario)
    scenario.deliver("two")
    to_pilot(scenario)
    assert check(scenario.node(), THINGS, "production").outcome is DecisionOutcome.WAITING


def test_approval_ends_when_production_moves_on(scenario: Scenario) -> None:
    staged = scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    scenario.deliver("two")
    to_production(scenario)
    older = Address("things", staged.digest)
    assert check(scenario.node(), older, "production").outcome is DecisionOutcome.WAITING


def test_what_pilot_accepted_goes_on_though_pilot_moved_on(scenario: Scenario) -> None:
    staged = scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    scenario.deliver("two")
    to_pilot(scenario)
    older = Address("things", staged.digest)
    approve(scenario.node(INES), older, "production", reason="seen")
    assert check(scenario.node(), older, "production").accepted
    assert promote(scenario.node(), older, "production").digest == staged.digest


def test_production_takes_only_what_pilot_accepted(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    newer = scenario.deliver("two")
    decision = check(scenario.node(), Address("things", newer.digest), "production")
    assert decision.outcome is DecisionOutcome.REFUSED
    assert [result.check for result in decision.checks if result.outcome is Outcome.FAIL] == ["digest"]
    text = to_text(report_of(scenario.node(), decision))
    version = f"things@{newer.digest}"
    assert f"stagegate check {version} --gate pilot && stagegate promote {version} --to pilot" in text
    # No request is recorded before the other checks pass, so an answer would be refused.
    assert "nobody was asked yet" in text
    assert "stagegate approve" not in text


def test_a_changed_policy_ends_the_acceptance(scenario: Scenario) -> None:
    scenario.deliver("none")
    to_pilot(scenario)
    scenario.deliver("one")
    assert check(scenario.node(), THINGS, "pilot").accepted
    stricter = {"pilot": {"require": ["license", "owner", "runbook"]}}
    assert "runbook is required" in scenario.deliver("one", gates=stricter).proposed[0].difference
    adopt(scenario.node(), scenario.spec(gates=stricter), reason="a runbook is needed")
    with pytest.raises(GateFailed, match="policy of pilot changed"):
        promote(scenario.node(), THINGS, "pilot")


def test_an_answer_that_came_after_the_acceptance_ends_it(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    assert check(scenario.node(), THINGS, "production").accepted
    approve(scenario.node(INES), THINGS, "production", approved=False, reason="March looks wrong after all")
    with pytest.raises(GateFailed, match="approval depends on changed since: answers"):
        promote(scenario.node(), THINGS, "production")


def test_version_that_the_gate_below_withdrew_is_not_promoted(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    bad = scenario.deliver("two")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    assert check(scenario.node(), THINGS, "production").accepted
    rollback(scenario.node(), Address("things", "pilot"), reason="loss went up")
    with pytest.raises(GateFailed, match="digest depends on changed since: below"):
        promote(scenario.node(), Address("things", bad.digest), "production")


def test_promotion_works_from_another_node_than_the_checks(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.deliver("one", gates={"pilot": {"require": ["license", {"space": {"warn": 1.0, "fail": 1.0}}]}})
    assert check(scenario.node(), THINGS, "pilot").accepted
    monkeypatch.setenv("STAGEGATE_NODE", "elsewhere")
    assert promote(scenario.node(cache="other"), THINGS, "pilot").ref == "pilot"


def test_the_newest_decision_counts(scenario: Scenario) -> None:
    scenario.deliver("one")
    assert check(scenario.node(), THINGS, "pilot").accepted
    scenario.deliver("one", license="CC-BY-NC-4.0")
    assert not check(scenario.node(), THINGS, "pilot").accepted
    with pytest.raises(StagegateError):
        promote(scenario.node(), THINGS, "pilot")


def test_check_that_can_t_run_is_inconclusive_and_never_passes(scenario: Scenario) -> None:
    scenario.deliver("one", gates={"pilot": {"require": ["license", "expectations"]}})
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.INCONCLUSIVE
    with pytest.raises(StagegateError) as caught:
        promote(scenario.node(), THINGS, "pilot")
    assert (caught.value.exit_code, caught.value.dataset) == (3, "things")


def test_evidence_that_still_holds_is_used_again(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    planned = {
        planned_check.requirement.check: planned_check.state
        for planned_check in preview_check(scenario.node(), THINGS, "production")
    }
    assert planned["license"] == "current"
    assert planned["approval"] == "missing"
    first = check(scenario.node(), THINGS, "pilot")
    assert check(scenario.node(), THINGS, "pilot").checks == first.checks


def test_way_back_shows_when_its_version_was_accepted(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_production(scenario)
    accepted = scenario.node().catalog.history("things", "production")[-1]
    scenario.deliver("two")
    to_production(scenario)
    rollback(scenario.node(INES), Address("things", "production"), reason="loss went up")
    scenario.deliver("three")
    decision = check(scenario.node(), Address("things", scenario.promote("pilot")), "production")
    (way_back,) = [evidence for evidence in decision.checks if evidence.check == "rollback"]
    assert way_back.measured["version"] == accepted.digest
    assert way_back.measured["accepted_at"] == decision_of(accepted.attestation).at


def test_rollback_returns_to_the_last_good_version(scenario: Scenario) -> None:
    good = scenario.deliver("one")
    to_production(scenario)
    bad = scenario.deliver("two")
    to_production(scenario)
    moved = rollback(scenario.node(INES), Address("things", "production"), reason="loss went up")
    assert (moved.digest, moved.previous) == (good.digest, bad.digest)
    assert scenario.node().cache.refs.get("things", "production") == good.digest
    with pytest.raises(GateFailed, match=r"withdrawn from production.*loss went up"):
        promote(scenario.node(), Address("things", bad.digest), "production")
    with pytest.raises(GateFailed, match="its acceptance is older than the withdrawal"):
        promote(scenario.node(), Address("things", bad.digest), "production", reinstate=True)
    assert check(scenario.node(), Address("things", bad.digest), "production").outcome is DecisionOutcome.WAITING
    approve(scenario.node(INES), Address("things", bad.digest), "production", reason="mended")
    assert check(scenario.node(), Address("things", bad.digest), "production").accepted
    assert promote(scenario.node(), Address("things", bad.digest), "production", reinstate=True).digest == bad.digest
    assert check(
        scenario.node(), Address("things", bad.digest), "production"
    ).accepted  # where it is, it stays approved


def test_a_rollback_withdraws_what_the_ref_names_when_it_moves(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = scenario.deliver("one")
    to_pilot(scenario)
    scenario.deliver("two")
    to_pilot(scenario)
    bad = scenario.deliver("three")
    assert check(scenario.node(), THINGS, "pilot").accepted
    here, history = scenario.node(), Catalog.history

    def promoted_meanwhile(catalog: Catalog, dataset: str, ref: str) -> list[RefEntry]:
        monkeypatch.undo()
        promote(scenario.node(), THINGS, "pilot")
        return history(catalog, dataset, ref)

    monkeypatch.setattr(Catalog, "history", promoted_meanwhile)
    moved = rollback(here, Address("things", "pilot"), to=good.digest, reason="loss went up")
    assert moved.previous == bad.digest
    with pytest.raises(GateFailed, match="withdrawn"):
        promote(scenario.node(), Address("things", bad.digest), "pilot")


def test_the_node_s_copy_ends_where_the_catalog_s_ref_does(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    good = scenario.deliver("one")
    to_pilot(scenario)
    scenario.deliver("two")
    assert check(scenario.node(), THINGS, "pilot").accepted
    put = Refs.put

    def rolled_back_meanwhile(refs: Refs, dataset: str, ref: str, digest: str) -> None:
        monkeypatch.undo()
        rollback(scenario.node(), Address("things", "pilot"), reason="loss went up")
        put(refs, dataset, ref, digest)

    monkeypatch.setattr(Refs, "put", rolled_back_meanwhile)
    promote(scenario.node(), THINGS, "pilot")
    assert scenario.node().cache.refs.get("things", "pilot") == good.digest


def test_a_move_stands_though_this_node_cannot_write_its_copy(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    version = scenario.deliver("one")
    assert check(scenario.node(), THINGS, "pilot").accepted

    def refuse(*_: object) -> None:
        raise CacheError("the volume is read-only")

    monkeypatch.setattr(Refs, "put", refuse)
    assert promote(scenario.node(), THINGS, "pilot").digest == version.digest
    assert "this node's copy did not" in caplog.text


def test_latest_is_not_rolled_back(scenario: Scenario) -> None:
    scenario.deliver("one")
    scenario.deliver("two")
    with pytest.raises(UsageError, match="names no target"):
        rollback(scenario.node(), Address("things", "latest"), reason="loss went up")


def test_there_is_nothing_to_roll_back_to_at_first(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_pilot(scenario)
    with pytest.raises(UsageError, match="no earlier version"):
        rollback(scenario.node(), Address("things", "pilot"), reason="why not")
    with pytest.raises(UsageError, match="needs a reason"):
        rollback(scenario.node(), Address("things", "pilot"), reason=" ")


def test_of_two_promoters_at_once_one_wins_and_the_other_is_told(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.deliver("one")
    assert check(scenario.node(), THINGS, "pilot").accepted
    first, two = scenario.node(Identity("one", "declared")), scenario.node(Identity("two", "declared"))
    # Both read the head before either moves it.
    heads = {id(workspace): workspace.catalog.ref("things", "pilot") for workspace in (first, two)}

    def move(workspace: Workspace) -> bool:
        version = workspace.catalog.resolve(THINGS)
        statement = newest_attestation(workspace.catalog, "things", version, "pilot")
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
        assert sorted(pool.map(move, (first, two))) == [False, True]


def test_the_log_s_attestation_says_who_asked_and_who_approved(scenario: Scenario) -> None:
    scenario.deliver("one")
    to_production(scenario)
    (entry,) = history(scenario.node(), Address("things", "production"))
    predicate = entry.attestation["predicate"]["stagegate"]
    assert predicate["request"]["requester"]["name"] == "ada"
    assert [approval["approver"]["name"] for approval in predicate["approvals"]] == [INES.name]


def test_check_that_fails_during_a_promotion_withdraws_it(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever checks finds nothing to withdraw yet, and whoever promotes has read the acceptance already."""
    scenario.deliver("one")
    assert check(scenario.node(), THINGS, "pilot").accepted
    move = Catalog.move_ref

    def fail_first(catalog: Catalog, *arguments: Any, **keywords: Any) -> RefEntry:
        monkeypatch.setattr(Catalog, "move_ref", move)
        stage(scenario.node(), scenario.spec(license="CC-BY-NC-4.0"))
        assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.REFUSED
        return catalog.move_ref(*arguments, **keywords)

    monkeypatch.setattr(Catalog, "move_ref", fail_first)
    with pytest.raises(GateFailed, match="failed its gate while it was promoted, and was withdrawn"):
        promote(scenario.node(), THINGS, "pilot")
    log = history(scenario.node(), Address("things", "pilot"))
    assert [entry.action for entry in log] == ["promote", "withdraw"]


@pytest.mark.parametrize("target", ["../../../x", "", "Production", "a/b"])
def test_a_target_s_name_leads_nowhere_else_in_the_catalog(scenario: Scenario, target: str) -> None:
    scenario.deliver("one")
    with pytest.raises(UsageError, match="is not a target's name"):
        approve(scenario.node(INES), THINGS, target)
    with pytest.raises(UsageError, match="is not a target's name"):
        verify_attestation(scenario.node(), "things", gate=target or "/")


def test_forged_request_writes_nothing_outside_the_catalog(scenario: Scenario) -> None:
    """Whoever may write to the catalog must not write, by the hand of whoever answers, to what lies beside it."""
    scenario.deliver("one")
    to_pilot(scenario)
    check(scenario.node(), THINGS, "production")
    workspace = scenario.node()
    (record,) = Path(workspace.catalog.url).rglob("request.json")
    record.chmod(0o600)
    request = read_requests(workspace.catalog, "things", "production")[0]
    record.write_text(record.read_text().replace(request.id, "../../../../../../out"))
    with pytest.raises(CorruptRecord, match="holds the request"):
        approve(scenario.node(INES), THINGS, "production", reason="seen")
    assert not (Path(workspace.catalog.url).parent / "out").exists()
