"""Who may overrule a gate (waive, revoke, roll back), with which proof, and what an approval is bound to."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.gate_records import REVOCATIONS, WAIVERS
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CorruptRecord, UsageError
from prefect_stagegate.gate.records.signing import SigningKey
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.revoke import revoke
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.gating.waive import revoke_waiver, waive
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Identity, Revocation, Waiver
from tests.support.keys import new_key
from tests.support.scenario import INES, Scenario

THINGS, PILOT = Address("things"), Address("things", "pilot")
MALLORY, OLEG = Identity("mallory", "declared"), Identity("oleg@example.org", "declared")
DENIED = {"license": "CC-BY-NC-4.0"}


class SignedScenario(Scenario):
    """A gate whose license check can fail, and whose approval Ines or Oleg signs."""

    def __init__(self, folder: Path, **policy: Any) -> None:
        self.keys = {who.name: new_key(folder / who.name) for who in (INES, OLEG)}
        public = {name: key.public for name, key in self.keys.items()}
        approval = {"approval": {"from": ["infra"], "signed": True, "keys": public}}
        gates = {"pilot": {"require": ["license", "owner", approval]}}
        owners = {"infra": f"{INES.name}, {OLEG.name}", "data": "d@example.org", "governance": "g@example.org"}
        super().__init__(folder, dataset="things", gates=gates, owners=owners, policy=policy)

    def signing(self, who: Identity) -> SigningKey | None:
        return self.keys.get(who.name)

    def waive(self, who: Identity, *, sign: bool = True, until: timedelta = timedelta(days=7)) -> Waiver:
        key = self.signing(who) if sign else None
        return waive(self.node(who), THINGS, "pilot", "license", reason="agreed", until=now() + until, key=key)

    def check(self) -> Decision:
        return check(self.node(), THINGS, "pilot")

    def approve(self, who: Identity = INES, *, approved: bool = True) -> None:
        approve(self.node(who), THINGS, "pilot", approved=approved, reason="seen", key=self.signing(who))


@pytest.fixture
def scenario(tmp_path: Path) -> SignedScenario:
    return SignedScenario(tmp_path)


def promoted(scenario: SignedScenario, *texts: str) -> None:
    for text in texts:
        scenario.deliver(text)
        scenario.check()
        scenario.approve()
        assert scenario.check().accepted
        promote(scenario.node(), THINGS, "pilot")


def forge(scenario: SignedScenario, waiver: Waiver, **changes: Any) -> None:
    scenario.node().catalog.add(
        WAIVERS,
        replace(waiver, **changes),
        replace(waiver, **changes).dataset,
        replace(waiver, **changes).digest,
        replace(waiver, **changes).target,
    )


def test_waiver_at_a_signed_gate_needs_such_a_signature(scenario: SignedScenario) -> None:
    scenario.deliver("one", **DENIED)
    assert scenario.check().outcome is DecisionOutcome.REFUSED
    with pytest.raises(UsageError, match="would not count: not an address of infra"):
        scenario.waive(MALLORY)
    with pytest.raises(UsageError, match="would not count: it is not signed with the key"):
        scenario.waive(INES, sign=False)
    waiver = scenario.waive(INES)
    assert waiver.approver == Identity(INES.name, "signature")
    assert scenario.check().outcome is DecisionOutcome.WAITING


def test_forged_waiver_at_a_signed_gate_does_not_count(scenario: SignedScenario) -> None:
    scenario.deliver("one", **DENIED)
    scenario.check()
    waiver = scenario.waive(INES, until=timedelta(days=1))
    forge(scenario, waiver, until=waiver.until[:8] + "28" + waiver.until[10:])
    forge(scenario, waiver, id="0" * 12, envelope={})
    rulings = [answer.ruling for answer in scenario.check().checks if answer.ruling]
    assert [ruling.waiver for ruling in rulings] == [waiver], "the signed one, as it was signed"


def test_forged_end_of_a_signed_waiver_ends_nothing(scenario: SignedScenario) -> None:
    scenario.deliver("one", **DENIED)
    scenario.check()
    waiver = scenario.waive(INES)
    with pytest.raises(UsageError, match="would not end: not an address of infra"):
        revoke_waiver(scenario.node(MALLORY), THINGS, "pilot", "license", reason="spite")
    end = Revocation(Identity(OLEG.name, "signature"), stamp(now()), "forged")
    forge(scenario, waiver, revoked=end)
    forge(scenario, waiver, until=waiver.at, envelope={})
    assert scenario.check().outcome is DecisionOutcome.WAITING
    # Nor does it keep those who may from ending the waiver.
    revoke_waiver(scenario.node(OLEG), THINGS, "pilot", "license", reason="fixed", key=scenario.signing(OLEG))
    assert scenario.check().outcome is DecisionOutcome.REFUSED


def test_ended_waiver_is_not_put_back(scenario: SignedScenario) -> None:
    scenario.deliver("one", **DENIED)
    scenario.check()
    waiver = scenario.waive(INES)
    revoke_waiver(scenario.node(OLEG), THINGS, "pilot", "license", reason="fixed", key=scenario.signing(OLEG))
    forge(scenario, waiver)
    assert scenario.check().outcome is DecisionOutcome.REFUSED


def test_revocation_at_a_signed_gate_needs_such_a_signature(scenario: SignedScenario) -> None:
    promoted(scenario, "one")
    with pytest.raises(UsageError, match="The revocation would not count: not an address of infra"):
        revoke(scenario.node(MALLORY), THINGS, "license", reason="spite")
    revocation = revoke(scenario.node(INES), THINGS, "license", reason="wrong", key=scenario.signing(INES))
    assert revocation.envelope
    scenario.node().catalog.add(
        REVOCATIONS,
        replace(revocation, check="owner"),
        replace(revocation, check="owner").dataset,
        replace(revocation, check="owner").digest,
    )
    scenario.node().catalog.add(
        REVOCATIONS,
        replace(revocation, at=stamp(now() + timedelta(hours=1)), envelope={}),
        replace(revocation, at=stamp(now() + timedelta(hours=1)), envelope={}).dataset,
        replace(revocation, at=stamp(now() + timedelta(hours=1)), envelope={}).digest,
    )
    before = {evidence.check: evidence.at for evidence in scenario.check().checks}
    again = {evidence.check: evidence.at for evidence in scenario.check().checks}
    assert before == again  # the signed one ended once, the forged one ended nothing
    assert before["license"] > before["owner"]
    assert revoke(scenario.node(OLEG), THINGS, "license", reason="again", key=scenario.signing(OLEG)).envelope


def test_rollback_at_a_signed_gate_needs_such_a_signature(scenario: SignedScenario) -> None:
    promoted(scenario, "one", "two")
    newest = scenario.head("pilot")
    for who, key in ((MALLORY, None), (INES, None), (INES, scenario.signing(OLEG))):
        with pytest.raises(UsageError, match="was not rolled back"):
            rollback(scenario.node(who), PILOT, reason="spite", key=key)
    assert scenario.head("pilot") == newest
    rollback(scenario.node(INES), PILOT, reason="loss went up", key=scenario.signing(INES))
    entry = scenario.node().catalog.history("things", "pilot")[-1]
    assert (entry.who.source, bool(entry.envelope)) == ("signature", True)
    assert scenario.head("pilot") != newest


def test_policy_that_allows_no_waivers_counts_none(tmp_path: Path) -> None:
    scenario = SignedScenario(tmp_path, waivers="none")
    scenario.deliver("one", **DENIED)
    scenario.check()
    with pytest.raises(UsageError, match="the policy allows no waivers"):
        scenario.waive(INES)


def test_policy_names_others_who_may_overrule(tmp_path: Path) -> None:
    scenario = SignedScenario(tmp_path, overrides={"approval": {"from": ["data"]}})
    scenario.deliver("one", **DENIED)
    scenario.check()
    with pytest.raises(UsageError, match="not an address of data"):
        scenario.waive(INES)
    scenario.waive(Identity("d@example.org", "declared"))
    assert scenario.check().outcome is DecisionOutcome.WAITING


def test_approval_ends_with_a_failure_that_is_waived_later(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates={"pilot": {"require": ["license", "approval"]}})
    scenario.deliver("one")
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    approve(scenario.node(INES), THINGS, "pilot", reason="seen")
    assert check(scenario.node(), THINGS, "pilot").accepted
    scenario.stage(**DENIED)  # the same version, under a licence that the check refuses
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.REFUSED
    waive(scenario.node(INES), THINGS, "pilot", "license", reason="agreed", until=now() + timedelta(days=1))
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.outcome is DecisionOutcome.WAITING
    assert "before license failed and was waived" in decision.checks[-1].summary
    approve(scenario.node(INES), THINGS, "pilot", reason="seen with the waiver")
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_renewed_evidence_ends_no_approval(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates={"pilot": {"require": ["license", "cache_integrity", "approval"]}})
    scenario.deliver("one")
    check(scenario.node(), THINGS, "pilot")
    approve(scenario.node(INES), THINGS, "pilot", reason="seen")
    revoke(scenario.node(INES), THINGS, "cache_integrity", reason="wrong mount")
    assert check(scenario.node(), THINGS, "pilot").accepted


def test_catalog_has_its_id_from_its_birth(tmp_path: Path) -> None:
    Scenario(tmp_path).deliver("one")
    assert len((tmp_path / "catalog/id").read_text()) == 33


def test_approval_of_another_catalog_does_not_count(tmp_path: Path) -> None:
    scenario = SignedScenario(tmp_path)
    scenario.deliver("one")
    scenario.check()
    folder = tmp_path / "catalog/datasets/things/approvals"
    scenario.on["catalog"] = tmp_path / "test"
    scenario.stage()
    scenario.check()
    scenario.approve()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "test/datasets/things/approvals", folder)
    scenario.on["catalog"] = tmp_path / "catalog"
    with pytest.raises(CorruptRecord, match="request of another catalog"):
        scenario.check()


def test_request_without_its_bounds_takes_no_answer(scenario: SignedScenario) -> None:
    scenario.deliver("one")
    scenario.check()
    for field in ("after", "shown"):
        path = max((scenario.folder / "catalog/datasets/things/approvals/pilot").glob("*/request.json"))
        request = json.loads(path.read_bytes())
        del request[field]
        path.write_text(json.dumps(request))
        with pytest.raises(UsageError, match="ended: it does not say what its answers are about"):
            scenario.approve()
        scenario.check()
    scenario.approve()
    assert scenario.check().accepted


def test_decline_counts_after_an_answer_dated_ahead(scenario: SignedScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.deliver("one")
    scenario.check()
    with monkeypatch.context() as patch:
        patch.setattr("prefect_stagegate.jobs.gating.approve.now", lambda: now() + timedelta(hours=1))
        scenario.approve()
    scenario.approve(approved=False)
    assert scenario.check().outcome is DecisionOutcome.REFUSED
    scenario.approve()
    assert scenario.check().accepted
