"""What was decided can be proved afterwards: by the chain, by what the records say of each other, and by signatures."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from prefect_stagegate.catalog import RefAction
from prefect_stagegate.catalog.gate_records import newest_attestation
from prefect_stagegate.checks.storage import Volume, cache_volume
from prefect_stagegate.cli import main
from prefect_stagegate.clock import moment, now, stamp
from prefect_stagegate.errors import GateFailed, RefConflict, StagegateError, UsageError
from prefect_stagegate.gate.records.signing import SigningKey, read_signing_key
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.jobs.gating import check as questions
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.review.attestations import AttestationVerdict, verify_attestation
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, DecisionOutcome, Identity
from prefect_stagegate.show import ready_text
from prefect_stagegate.workspace import Workspace, no_passphrase
from tests.support.scenario import INES, Scenario
from tests.support.versions import policy_log

THINGS, PILOT = Address("things"), Address("things", "pilot")
OLEG = Identity("oleg@example.org", "declared")


class PilotScenario(Scenario):
    """A scenario with the gate `pilot`, whose records tests look at."""

    def newcomer(self) -> Workspace:
        """A node that never read the catalog, so that it remembers nothing of it."""
        return self.node(cache=f"node-{uuid.uuid4().hex}")

    def spec(self, gate: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        return super().spec(**{"gates": {"pilot": gate or {"require": ["license", "owner"]}}, **changes})

    def to_pilot(self, text: str, gate: dict[str, Any] | None = None) -> str:
        self.deliver(text, gate=gate)
        return self.promote("pilot")

    def log(self, seq: int) -> Path:
        return self.folder / f"catalog/datasets/things/refs/pilot/{seq:08d}.json"


@pytest.fixture
def scenario(tmp_path: Path) -> PilotScenario:
    return PilotScenario(tmp_path)


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A key that signs each decision; its public half is given."""
    path = tmp_path / "key.pem"
    write_key(path)
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(path))
    return public(path)


def public(path: Path) -> str:
    command = [str(Path(sys.executable).with_name("stagegate")), "key", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write_key(path: Path, encryption: KeySerializationEncryption | None = None) -> None:
    written = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()
    )
    path.touch(0o600)
    path.write_bytes(written)
    path.chmod(0o600)


def verdicts(scenario: PilotScenario, what: str | Path = "things@pilot", **more: Any) -> dict[str, AttestationVerdict]:
    return {part.what: part.verdict for part in verify_attestation(scenario.newcomer(), what, **more)}


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_bytes())
    edit(value)
    path.write_text(json.dumps(value))


# ── withdrawing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def fail_again(scenario: PilotScenario) -> None:
    """The licence of what stands at the pilot turns out to be another one, under the same policy."""
    digest = scenario.node().catalog.resolve(PILOT)
    scenario.stage(gate=_gate(scenario), license="CC-BY-NC-4.0")
    assert check(scenario.node(INES), Address("things", digest), "pilot").outcome is DecisionOutcome.REFUSED


def _gate(scenario: PilotScenario) -> dict[str, Any]:
    adopted = policy_log(scenario.node().catalog, "things").head()
    assert adopted
    return {key: value for key, value in adopted.policy["gates"]["pilot"].items() if value}


def test_failed_recheck_logs_a_withdrawal_with_who_and_why(scenario: PilotScenario) -> None:
    digest = scenario.to_pilot("one")
    fail_again(scenario)
    (_, entry) = scenario.node().catalog.history("things", "pilot")
    assert (entry.action, entry.digest, entry.withdrawn, entry.who) == (RefAction.WITHDRAW, digest, digest, INES)
    assert entry.reason == "failed when it was checked again: license"
    fail_again(scenario)
    assert len(scenario.node().catalog.history("things", "pilot")) == 2
    assert not verify_history(scenario.node())[1].problems


def test_runs_are_held_until_a_withdrawn_version_is_reinstated(scenario: PilotScenario) -> None:
    scenario.to_pilot("one")
    second = scenario.to_pilot("two")
    fail_again(scenario)
    readiness = find_ready(scenario.node(), PILOT)
    assert readiness.chosen is None
    assert "withdrawn" in ready_text(readiness)
    scenario.stage()
    assert check(scenario.node(), Address("things", second), "pilot").accepted
    mended = find_ready(scenario.node(), PILOT)
    assert mended.chosen is None
    assert mended.steps == (f"stagegate promote things@{second} --to pilot --reinstate",)
    with pytest.raises(GateFailed, match="was withdrawn from pilot by ines"):
        promote(scenario.node(), Address("things", second), "pilot")
    promote(scenario.node(), Address("things", second), "pilot", reinstate=True)
    assert find_ready(scenario.node(), PILOT).chosen
    assert not verify_history(scenario.node())[1].problems


def test_runs_fall_back_where_the_gate_says_so(scenario: PilotScenario) -> None:
    gate = {"require": ["license", "owner"], "on_withdrawal": "fall_back"}
    first = scenario.to_pilot("one", gate)
    scenario.to_pilot("two", gate)
    fail_again(scenario)
    chosen = find_ready(scenario.node(), PILOT).chosen
    assert chosen
    assert chosen.digest == first
    assert rollback(scenario.node(), PILOT, reason="it is withdrawn").digest == first


def test_failure_of_a_node_or_other_policy_withdraws_nothing(
    scenario: PilotScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.to_pilot("one", {"require": ["license", {"space": {"warn": 1, "fail": 1}}]})
    full = Volume(scenario.folder, total=10, free=-1, floor=0, held=0)
    monkeypatch.setattr(cache_volume, "_compute", lambda _: full)
    later = stamp(now() + timedelta(hours=1))
    monkeypatch.setattr(questions, "now", lambda: moment(later))
    assert check(scenario.node(), PILOT, "pilot").outcome is DecisionOutcome.REFUSED
    other = scenario.spec({"require": ["license"]}, license="CC-BY-NC-4.0")
    stage(scenario.node(), other)
    adopt(scenario.node(), other, reason="another policy")
    assert check(scenario.node(), PILOT, "pilot").outcome is DecisionOutcome.REFUSED
    assert [entry.action for entry in scenario.node().catalog.history("things", "pilot")] == [RefAction.PROMOTE]


def test_withdrawn_version_does_not_pass_the_gate_above(scenario: PilotScenario) -> None:
    gates = {"pilot": {"require": ["license"]}, "production": {"extends": "pilot", "require": ["digest"]}}
    digest = scenario.deliver("one", gates=gates).digest
    assert check(scenario.node(), THINGS, "pilot").accepted
    promote(scenario.node(), THINGS, "pilot")
    assert check(scenario.node(), THINGS, "production").accepted
    scenario.stage(gates=gates, license="CC-BY-NC-4.0")
    check(scenario.node(), Address("things", digest), "pilot")
    scenario.stage(gates=gates)
    again = check(scenario.node(), Address("things", digest), "production")
    assert [result.check for result in again.checks if result.outcome == "fail"] == ["digest"]


# ── verifying ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_history_verifies_and_says_what_that_proves_and_what_not(
    scenario: PilotScenario, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.to_pilot("one")
    scenario.to_pilot("two")
    rollback(scenario.node(), PILOT, reason="loss went up")
    monkeypatch.setenv("STAGEGATE_CACHE", str(scenario.folder / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(scenario.folder / "catalog"))
    main(["history", "things", "--verify"])
    output = capsys.readouterr().out
    assert "things@pilot: 3 entries, 3 attested; unbroken, last entry sha256:" in output
    assert "Not proved: that no newer entry was cut off" in output
    main(["history", "things@pilot"])
    ledger = capsys.readouterr().out
    assert "rollback by ada (declared): loss went up" in ledger
    assert "2 checks, requested by ada" in ledger
    change(scenario.log(2), lambda entry: entry.update(reason="nothing happened"))
    with pytest.raises(SystemExit) as ended:
        main(["history", "things", "--verify"])
    assert ended.value.code == 3
    assert "entry 3 does not follow the one before" in capsys.readouterr().out


@pytest.mark.parametrize("seq", [1, 2])
def test_a_missing_entry_is_found(scenario: PilotScenario, seq: int) -> None:
    for text in ("one", "two", "three"):
        scenario.to_pilot(text)
    scenario.log(seq).unlink()
    assert verify_history(scenario.node(), PILOT)[0].problems


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "another version": lambda entry: entry.update(digest="sha256:" + "0" * 64),
    "another outcome": lambda entry: entry["attestation"]["predicate"].update(result="FAILED"),
    "another decision": lambda entry: _decision(entry).update(outcome="refused"),
    "another target": lambda entry: _decision(entry).update(target="production"),
    "another policy": lambda entry: _decision(entry).update(policy="sha256:" + "0" * 64),
    "another subject": lambda entry: entry["attestation"]["subject"][0].update(name="other"),
    "decided later": lambda entry: _decision(entry).update(at="2999-01-01T00:00:00.000000Z"),
}


def _decision(entry: dict[str, Any]) -> dict[str, Any]:
    decision: dict[str, Any] = entry["attestation"]["predicate"]["stagegate"]["decision"]
    return decision


@pytest.mark.parametrize("what", EDITS)
def test_edited_entry_is_found_even_as_the_last_of_its_log(scenario: PilotScenario, what: str) -> None:
    scenario.to_pilot("one")
    change(scenario.log(1), EDITS[what])
    (chain,) = verify_history(scenario.node(), PILOT)
    assert chain.problems


def test_attestation_is_verified_against_all_that_it_names(scenario: PilotScenario) -> None:
    scenario.to_pilot("one")
    holds = verdicts(scenario)
    assert holds.pop("signature") is AttestationVerdict.UNKNOWN
    assert set(holds.values()) == {AttestationVerdict.HOLDS}
    change(scenario.log(1), lambda entry: _decision(entry)["checks"][0].update(summary="looked twice"))
    # The last entry of the log was changed, and nothing was noted elsewhere.
    assert verdicts(scenario)["log"] is AttestationVerdict.HOLDS
    change(scenario.log(1), EDITS["another policy"])
    assert verdicts(scenario) == {"contents": AttestationVerdict.FAILS}


def test_a_signature_finds_any_field_that_was_flipped(scenario: PilotScenario, key: str) -> None:
    scenario.to_pilot("one")
    assert set(verdicts(scenario, keys=[key]).values()) == {AttestationVerdict.HOLDS}
    assert verify_history(scenario.node(), PILOT, [key])[0].signed == 1
    change(scenario.log(1), lambda entry: _decision(entry)["checks"][0].update(summary="looked twice"))
    assert verdicts(scenario, keys=[key])["signature"] is AttestationVerdict.FAILS
    assert verify_history(scenario.newcomer(), PILOT, [key])[0].signed == 0


def test_exported_envelope_verifies_by_its_signature(
    scenario: PilotScenario,
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digest = scenario.to_pilot("one")
    monkeypatch.setenv("STAGEGATE_CACHE", str(scenario.folder / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(scenario.folder / "catalog"))
    exported = tmp_path / "exported.json"
    main(["verify-attestation", f"things@{digest}", "--gate", "pilot", "--key", key, "--export", str(exported)])
    assert "holds    signature" in capsys.readouterr().out
    assert set(verdicts(scenario, exported, keys=[key]).values()) == {AttestationVerdict.HOLDS}
    assert verdicts(scenario, exported, keys=["ed25519:" + "0" * 64])["signature"] is AttestationVerdict.FAILS
    envelope = json.loads(exported.read_bytes())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    envelope["signatures"][0]["sig"] = "AAAA" + envelope["signatures"][0]["sig"][4:]
    exported.write_text(json.dumps(envelope))
    assert verdicts(scenario, exported, keys=[key])["signature"] is AttestationVerdict.FAILS


def test_unusable_key_stops_a_check_before_it_records(
    scenario: PilotScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = scenario.deliver("one").digest
    path = tmp_path / "key.pem"
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(path))
    for text, mode, problem in (("", 0o600, "is no private key"), ("", 0o604, "can be read by everybody")):
        path.write_text(text)
        path.chmod(mode)
        with pytest.raises(UsageError, match=problem):
            check(scenario.node(), THINGS, "pilot")
    write_key(path, BestAvailableEncryption(b"secret"))
    with pytest.raises(UsageError, match="needs a passphrase, and a task has no terminal"):
        check(scenario.node(), THINGS, "pilot")
    assert newest_attestation(scenario.node().catalog, "things", digest, "pilot") is None


# ── replaying ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_replay_names_flipped_decisions_and_the_deciding_check(
    scenario: PilotScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = {"space": {"warn": 1, "fail": 1}}
    digest = scenario.deliver("one", gate={"require": ["license", limits]}).digest
    assert check(scenario.node(), THINGS, "pilot").accepted
    monkeypatch.setenv("STAGEGATE_CACHE", str(scenario.folder / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(scenario.folder / "catalog"))
    before = sorted(path for path in (scenario.folder / "catalog").rglob("*") if path.is_file())

    def replayed(*require: Any) -> Any:
        policy = tmp_path / "policy.yaml"
        spec = read_spec(scenario.spec({"require": list(require)})).canonical()
        policy.write_text(json.dumps(spec))
        main(["policy", "replay", "--policy", str(policy), "--since", "1d", "--json"])
        return json.loads(capsys.readouterr().out)

    assert [replay["flipped"] for replay in replayed("license", limits)] == [False]
    (stricter,) = replayed("license", {"space": {"warn": 0.000001, "fail": 0.000001}})
    assert (stricter["digest"], stricter["before"], stricter["after"]) == (digest, "accepted", "refused")
    assert [(changed["check"], changed["before"], changed["after"]) for changed in stricter["checks"]] == [
        ("space", "pass", "fail")
    ]
    (more,) = replayed("license", limits, "owner")
    assert (more["after"], [changed["check"] for changed in more["checks"]]) == ("inconclusive", ["owner"])
    main(["policy", "replay", "--policy", str(tmp_path / "policy.yaml")])
    assert "accepted → inconclusive" in capsys.readouterr().out
    assert before == sorted(path for path in (scenario.folder / "catalog").rglob("*") if path.is_file())
    main(["policy", "replay", "--policy", str(tmp_path / "policy.yaml"), "--since", "2999-01-01"])
    assert "0 of 0 decisions" in capsys.readouterr().out


# ── signed answers ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def signed(scenario: PilotScenario, tmp_path: Path) -> dict[str, SigningKey]:
    """A version that waits for two signed answers; the keys of the people by name."""
    keys = {}
    for who in (INES, OLEG):
        path = tmp_path / f"{who.name}.pem"
        write_key(path)
        keys[who.name] = read_signing_key(path, no_passphrase)
    asks = {"count": 2, "from": ["infra", "governance"], "signed": True, "keys": {n: k.public for n, k in keys.items()}}
    people = {"infra": INES.name, "governance": OLEG.name, "data": "d@example.org", "ai": "a@example.org"}
    scenario.deliver("one", gate={"require": ["license", {"approval": asks}]}, owners=people)
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    return keys


def test_only_a_signature_proves_who_agreed(scenario: PilotScenario, signed: dict[str, SigningKey]) -> None:
    ines, oleg = signed[INES.name], signed[OLEG.name]
    with pytest.raises(UsageError, match=r"not signed with the key that .*--key KEY.pem"):
        approve(scenario.node(INES), THINGS, "pilot")
    with pytest.raises(UsageError, match=r"oleg@example\.org can't answer for pilot: it is not signed with the key"):
        approve(scenario.node(OLEG), THINGS, "pilot", key=ines)
    with pytest.raises(UsageError, match=r"ben can't answer for pilot: not an address of infra, governance"):
        approve(scenario.node(Identity("ben", "declared")), THINGS, "pilot", key=ines)
    approve(scenario.node(INES), THINGS, "pilot", reason="seen", key=ines)
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    approve(scenario.node(OLEG), THINGS, "pilot", reason="seen", key=oleg)
    decision = check(scenario.node(), THINGS, "pilot")
    assert decision.accepted
    (answered,) = [result for result in decision.checks if result.check == "approval"]
    assert [answer["known_by"] for answer in answered.measured["answers"]] == ["signature", "signature"]


EDITED: dict[str, Callable[[dict[str, Any]], None]] = {
    "name": lambda answer: answer["approver"].update(name=OLEG.name),
    "reason": lambda answer: answer.update(reason="not seen"),
    "time": lambda answer: answer.update(at="2026-01-01T00:00:00.000000Z"),
    "signature": lambda answer: answer["envelope"]["signatures"][0].update(sig="AAAA"),
    "no envelope": lambda answer: answer.update(envelope={}),
}


@pytest.mark.parametrize("what", EDITED)
def test_answer_changed_in_the_catalog_does_not_count(
    scenario: PilotScenario, signed: dict[str, SigningKey], what: str
) -> None:
    for who in (INES, OLEG):
        approve(scenario.node(who), THINGS, "pilot", reason="seen", key=signed[who.name])
    assert check(scenario.node(), THINGS, "pilot").accepted
    (path,) = (scenario.folder / "catalog/datasets/things/approvals/pilot").glob("*/00000001.json")
    change(path, EDITED[what])
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    with pytest.raises(StagegateError):
        promote(scenario.node(), THINGS, "pilot")


def test_copy_of_a_retracted_answer_does_not_count(scenario: PilotScenario, signed: dict[str, SigningKey]) -> None:
    for who in (INES, OLEG):
        approve(scenario.node(who), THINGS, "pilot", reason="seen", key=signed[who.name])
    approve(scenario.node(OLEG), THINGS, "pilot", approved=False, reason="no", key=signed[OLEG.name])
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.REFUSED
    (folder,) = (scenario.folder / "catalog/datasets/things/approvals/pilot").iterdir()
    (folder / "00000004.json").write_bytes((folder / "00000002.json").read_bytes())
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.REFUSED


# ── many at once ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_concurrent_promotions_and_checks_leave_no_gap(scenario: PilotScenario) -> None:
    digests = [scenario.deliver(text).digest for text in ("one", "two")]
    for digest in digests:
        assert check(scenario.node(), Address("things", digest), "pilot").accepted

    def work(number: int) -> str:
        workspace = scenario.node(Identity(f"person-{number}", "declared"))
        try:
            return promote(workspace, Address("things", digests[number % 2]), "pilot").digest
        except RefConflict:
            return ""
        except StagegateError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(work, range(16)))
    assert set(outcomes) <= {"", *digests}
    (chain,) = verify_history(scenario.node(), PILOT)
    log = scenario.node().catalog.history("things", "pilot")
    assert not chain.problems
    assert [entry.seq for entry in log] == list(range(1, chain.entries + 1))
    assert all(earlier.digest != two.digest for earlier, two in pairwise(log))


def test_two_approvers_at_once_are_two_answers_and_one_promotion(scenario: PilotScenario) -> None:
    people = {"infra": INES.name, "governance": OLEG.name, "data": "d@example.org", "ai": "a@example.org"}
    gate = {"require": ["license", {"approval": {"count": 2, "from": ["infra", "governance"]}}]}
    scenario.deliver("one", gate=gate, owners=people)
    assert check(scenario.node(), THINGS, "pilot").outcome is DecisionOutcome.WAITING
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda who: approve(scenario.node(who), THINGS, "pilot", reason="seen"), (INES, OLEG)))
    assert check(scenario.node(), THINGS, "pilot").accepted
    promote(scenario.node(), THINGS, "pilot")
    (chain,) = verify_history(scenario.node(), PILOT)
    assert (chain.entries, chain.problems) == (1, ())
    (entry,) = scenario.node().catalog.history("things", "pilot")
    assert len(entry.attestation["predicate"]["stagegate"]["approvals"]) == 2
