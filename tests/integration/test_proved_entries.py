"""A catalog writer appends well-formed entries to a target's log: readers follow only what signatures prove."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.gate_records import put_evidence, read_evidence
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CatalogError, UnprovedEntry
from prefect_stagegate.gate.records.signing import read_public_key
from prefect_stagegate.jobs.address import resolve
from prefect_stagegate.jobs.gating.proofs import counted_evidence
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.model import Address, Evidence, Outcome
from tests.support.forging import AttackedScenario, make_key, signing_scenario
from tests.support.records import CountedRecords
from tests.support.scenario import INES

PRODUCTION = Address("things", "production")


@pytest.fixture
def signed_answers(tmp_path: Path) -> AttackedScenario:
    """A gate that asks for a signed approval; decisions are not signed."""
    asked = {"signed": True, "keys": {INES.name: read_public_key(make_key(tmp_path, "ines"))}}
    return AttackedScenario(tmp_path, gates={"production": {"require": ["license", {"approval": asked}]}})


@pytest.fixture
def signed_decisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AttackedScenario:
    """A gate without an approval; the settings have the key that signs decisions."""
    return signing_scenario(tmp_path, monkeypatch)


@pytest.mark.parametrize("fixture", ["signed_answers", "signed_decisions"])
def test_forged_promotion_is_served_by_no_command(
    fixture: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario: AttackedScenario = request.getfixturevalue(fixture)
    first, second = scenario.promote_and_forge()
    for run in (scenario.run, scenario.on_another_node):
        for words in (["stage"], ["show"]):
            assert run(*words, "things@production") == 3
            errors = capsys.readouterr().err
            assert "Entry 2 of things@production, by mallory (declared) at " in errors
            assert f"things@production stays at {first} (entry 1)" in errors
            assert f"stagegate promote things@{second} --to production" in errors
    with pytest.raises(UnprovedEntry):
        find_ready(scenario.node(), PRODUCTION)
    assert scenario.on_another_node("path", "things@production") == 2
    assert not scenario.run("history", "things@production")
    assert "mallory" in capsys.readouterr().out


@pytest.fixture
def forged(signed_decisions: AttackedScenario) -> AttackedScenario:
    """A forged promotion after a proved one, whose version this node's copy names."""
    signed_decisions.promote_and_forge()
    return signed_decisions


@pytest.mark.parametrize("command", ["stage", "require_ready"])
def test_readers_without_the_catalog_say_it_is_unproved(
    forged: AttackedScenario, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = forged.node().catalog.history("things", "production")[0].digest
    # This node knows of no forged entry yet.
    assert not forged.run("path", "things@production")
    if command == "require_ready":
        with pytest.raises(UnprovedEntry):
            find_ready(forged.node(), PRODUCTION)
    else:
        assert forged.run(command, "things@production") == 3
    for words in (["path", "things@production"], ["exec", "things@production", "true"]):
        capsys.readouterr()
        assert forged.run(*words) == 3
        errors = capsys.readouterr().err
        assert "The catalog's newest entry of things@production could not be proved" in errors
        assert f"things@{first}" in errors
    with pytest.raises(UnprovedEntry), open_dataset("things@production", cache=forged.on["cache"]):
        pass
    with open_dataset(f"things@{first}", cache=forged.on["cache"]) as held:
        assert held.digest == first
    assert forged.run("path", "things") == 0
    # No collection takes what the copy names.
    assert forged.run("gc") == 0
    assert forged.run("path", f"things@{first}") == 0


def test_readers_follow_again_after_a_proved_entry(forged: AttackedScenario) -> None:
    assert forged.run("stage", "things@production") == 3
    other = forged.folder / "other"
    # From another node, so that nothing but the staging moves this node's copy.
    forged.on["cache"], cache = other, forged.on["cache"]
    first = forged.node().catalog.history("things", "production")[0].digest
    assert not forged.run("check", f"things@{first}", "--gate", "production")
    assert not forged.run("promote", f"things@{first}", "--to", "production")
    forged.on["cache"] = cache
    assert forged.run("path", "things@production") == 3
    assert not forged.run("stage", "things@production")
    assert not forged.run("path", "things@production")


def test_copy_of_a_forged_version_is_read_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = AttackedScenario(tmp_path, gates={"production": {"require": ["license"]}})
    scenario.deliver("one")
    forged = scenario.promote_signed()
    assert not scenario.run("path", "things@production")
    monkeypatch.setenv("STAGEGATE_VERIFICATION_KEYS", make_key(tmp_path, "node"))
    assert scenario.run("stage", "things@production") == 3
    capsys.readouterr()
    assert scenario.run("path", "things@production") == 3
    assert forged in capsys.readouterr().err


@pytest.mark.parametrize("fixture", ["signed_answers", "signed_decisions"])
def test_proved_promotion_after_a_forged_one_counts(fixture: str, request: pytest.FixtureRequest) -> None:
    scenario: AttackedScenario = request.getfixturevalue(fixture)
    first, second = scenario.promote_and_forge()
    assert scenario.promote_signed() == second
    assert not scenario.on_another_node("stage", "things@production")
    assert [entry.seq for entry in scenario.node().catalog.history("things", "production")] == [1, 3]
    assert scenario.node().catalog.resolve(Address("things", "production~1")) == first


def test_served_version_is_promoted_again_over_a_forgery(signed_decisions: AttackedScenario) -> None:
    scenario = signed_decisions
    first, _ = scenario.promote_and_forge()
    version = f"things@{first}"
    assert not scenario.run("check", version, "--gate", "production")
    assert not scenario.run("promote", version, "--to", "production")
    assert scenario.node().catalog.resolve(PRODUCTION) == first


@pytest.mark.parametrize("fixture", ["signed_answers", "signed_decisions"])
def test_old_acceptance_takes_no_target_back(
    fixture: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario: AttackedScenario = request.getfixturevalue(fixture)
    scenario.promote_two()
    scenario.forge_return()
    assert scenario.on_another_node("stage", "things@production") == 3
    assert "can't be proved: the target moved after its" in capsys.readouterr().err


def test_old_approval_takes_no_target_back(
    signed_answers: AttackedScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    signed_answers.promote_two()
    statement = json.loads(signed_answers.entry(1).read_bytes())["attestation"]
    statement["predicate"]["stagegate"]["decision"]["after"] = 2
    signed_answers.forge_return(attestation=statement)
    assert signed_answers.on_another_node("show", "things@production") == 3
    assert "the target moved after its approval was requested" in capsys.readouterr().err


def test_rollback_that_nobody_signed_is_not_followed(
    signed_answers: AttackedScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    signed_answers.forge_rollback()
    assert signed_answers.on_another_node("stage", "things@production") == 3
    assert "can't be proved: nobody who may roll back signed it" in capsys.readouterr().err


def test_rollback_that_somebody_signed_is_followed(signed_answers: AttackedScenario) -> None:
    signed_answers.promote_two()
    key = str(signed_answers.folder / "ines.pem")
    words = ["rollback", "things@production", "--reason", "so", "--key", key]
    assert not signed_answers.run(*words, identity=INES.name)
    assert not signed_answers.on_another_node("show", "things@production")


def test_changed_keys_prove_entries_anew(
    signed_decisions: AttackedScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_decisions.deliver("one")
    signed_decisions.promote_signed()
    assert not signed_decisions.run("stage", "things@production")
    monkeypatch.setenv("STAGEGATE_VERIFICATION_KEYS", make_key(tmp_path, "other"))
    assert signed_decisions.run("stage", "things@production") == 3


def test_known_entry_is_verified_once(signed_decisions: AttackedScenario) -> None:
    signed_decisions.deliver("one")
    signed_decisions.promote_signed()
    signed_decisions.node().catalog.resolve(PRODUCTION)
    node = signed_decisions.node()
    node.catalog.records = records = CountedRecords(node.catalog.records)
    node.catalog.resolve(PRODUCTION)
    assert records.calls == {"list": 1, "read": 1}


def test_move_that_nobody_would_follow_is_not_written(
    signed_decisions: AttackedScenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STAGEGATE_SIGNING_KEY")
    signed_decisions.deliver("one")
    assert not signed_decisions.run("check", "things", "--gate", "production")
    assert signed_decisions.run("promote", "things", "--to", "production") == 3
    assert "none of the verification keys signed its decision" in capsys.readouterr().err
    assert not signed_decisions.entry(1).exists()


def test_audit_with_a_key_names_an_unsigned_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = AttackedScenario(tmp_path, gates={"production": {"require": ["license"]}})
    key = make_key(tmp_path, "node")
    for text in ("one", "two"):
        scenario.deliver(text)
        scenario.promote_signed()
        monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "node.pem"))
    assert scenario.run("history", "things", "--verify", "--key", key) == 3
    output = capsys.readouterr().out
    assert "entry 1: none of the verification keys signed its decision (written by ada (declared) at " in output
    assert "entry 2" not in output
    assert "Proved" not in output


@pytest.fixture
def signed_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AttackedScenario:
    """A policy with the key of its only node; the settings have no verification keys."""
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "node.pem"))
    keys = [read_public_key(make_key(tmp_path, "node"))]
    gates = {"production": {"require": [{"license": {"deny": ["Proprietary"]}}]}}
    return AttackedScenario(tmp_path, gates=gates, policy={"node_keys": keys})


def evidence_of(scenario: AttackedScenario, digest: str) -> list[Evidence]:
    return read_evidence(scenario.node().catalog, "things", digest)


def planted(evidence: Evidence) -> Evidence:
    """A pass of the same question, without a signature."""
    return replace(evidence, outcome=Outcome.PASS, at=stamp(now()), findings=(), signatures=())


def resigned(evidence: Evidence) -> Evidence:
    """The same with the signature of the other evidence."""
    return replace(evidence, outcome=Outcome.PASS, at=stamp(now()), findings=())


@pytest.mark.parametrize("plant", [planted, resigned])
def test_planted_pass_opens_no_gate(signed_evidence: AttackedScenario, plant: Callable[[Evidence], Evidence]) -> None:
    scenario = signed_evidence
    bad = scenario.deliver("bad", license="Proprietary").digest
    assert scenario.run("check", "things", "--gate", "production") == 1
    (failed,) = evidence_of(scenario, bad)
    put_evidence(scenario.node().catalog, "things", bad, [plant(failed)])
    assert scenario.run("check", "things", "--gate", "production") == 1
    assert scenario.run("promote", "things", "--to", "production") == 1


def test_pass_of_another_version_opens_no_gate(signed_evidence: AttackedScenario) -> None:
    scenario = signed_evidence
    scenario.deliver("good")
    (passed,) = evidence_of(scenario, scenario.promote_signed())
    bad = scenario.deliver("bad", license="Proprietary").digest
    assert scenario.run("check", "things", "--gate", "production") == 1
    (failed,) = evidence_of(scenario, bad)
    put_evidence(scenario.node().catalog, "things", bad, [replace(passed, binding=failed.binding)])
    assert scenario.run("check", "things", "--gate", "production") == 1
    # As it was signed, where nothing but the version tells them apart.
    put_evidence(scenario.node().catalog, "things", bad, [passed])
    assert passed not in counted_evidence(scenario.node().catalog, resolve(scenario.node(), Address("things")))


def test_signed_evidence_is_used_again(signed_evidence: AttackedScenario) -> None:
    version = signed_evidence.deliver("good")
    assert not signed_evidence.run("check", "things", "--gate", "production")
    assert not signed_evidence.run("check", "things", "--gate", "production")
    assert len(evidence_of(signed_evidence, version.digest)) == 1


def test_node_without_its_key_decides_nothing(
    signed_evidence: AttackedScenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = signed_evidence.deliver("good")
    monkeypatch.delenv("STAGEGATE_SIGNING_KEY")
    for words in (["check", "things", "--gate", "production"], ["validate", "things"]):
        assert signed_evidence.run(*words) == 2
        assert "Only nodes with a key in the policy of things decide, and this node has none" in capsys.readouterr().err
    assert not evidence_of(signed_evidence, version.digest)


def test_decision_of_no_node_is_followed_by_nobody(signed_evidence: AttackedScenario) -> None:
    signed_evidence.deliver("one")
    signed_evidence.promote_signed()
    signed_evidence.forge_promotion(signed_evidence.deliver("two").digest)
    assert signed_evidence.on_another_node("stage", "things@production") == 3


def test_accepting_decision_withdraws_nothing(signed_evidence: AttackedScenario) -> None:
    signed_evidence.deliver("one")
    signed_evidence.forge_withdrawal(signed_evidence.promote_signed())
    assert signed_evidence.on_another_node("stage", "things@production") == 3


def test_rollback_that_no_node_signed_is_not_followed(
    signed_evidence: AttackedScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    signed_evidence.forge_rollback()
    assert signed_evidence.on_another_node("show", "things@production") == 3
    assert "can't be proved: nobody who may roll back signed it" in capsys.readouterr().err


def test_rollback_by_a_node_with_its_key_is_followed(
    signed_evidence: AttackedScenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = signed_evidence
    first = scenario.deliver("one").digest
    scenario.promote_signed()
    scenario.deliver("two")
    scenario.promote_signed()
    words = ["rollback", "things@production", "--reason", "so"]
    with monkeypatch.context() as patch:
        patch.delenv("STAGEGATE_SIGNING_KEY")
        assert scenario.run(*words) == 2
        errors = capsys.readouterr().err
        assert "things@production was not rolled back: no key of `policy.node_keys` signed the rollback" in errors
        assert "STAGEGATE_SIGNING_KEY" in errors
    assert not scenario.entry(3).exists()
    assert not scenario.run(*words)
    assert not scenario.on_another_node("show", "things@production")
    (entry,) = scenario.node().catalog.history("things", "production")[2:]
    assert (entry.digest, entry.who.source) == (first, "declared")


def test_signed_rollback_does_not_count_at_another_place(signed_evidence: AttackedScenario) -> None:
    scenario = signed_evidence
    scenario.promote_two()
    assert not scenario.run("rollback", "things@production", "--reason", "so")
    rolled_back = json.loads(scenario.entry(3).read_bytes())
    scenario.deliver("three")
    scenario.promote_signed()
    chained = {"seq": 5, "before": f"sha256:{hashlib.sha256(scenario.entry(4).read_bytes()).hexdigest()}"}
    scenario.entry(5).write_text(json.dumps({**rolled_back, **chained}))
    assert scenario.on_another_node("show", "things@production") == 3


@pytest.fixture
def tightened(tmp_path: Path) -> AttackedScenario:
    """A version that was promoted without signatures, and a policy adopted since that asks for a signed approval."""
    scenario = AttackedScenario(tmp_path, gates={"production": {"require": ["license"]}})
    scenario.deliver("one")
    scenario.promote()
    asked = {"signed": True, "keys": {INES.name: read_public_key(make_key(tmp_path, "ines"))}}
    signed = scenario.spec_file(gates={"production": {"require": ["license", {"approval": asked}]}})
    assert not scenario.run("policy", "adopt", str(signed), "--reason", "sign")
    return scenario


def test_stricter_policy_keeps_what_is_served(tightened: AttackedScenario) -> None:
    assert not tightened.on_another_node("show", "things@production")


def test_replaced_policy_promotes_nothing_new(tightened: AttackedScenario, capsys: pytest.CaptureFixture[str]) -> None:
    tightened.forge_promotion(tightened.deliver("two").digest)
    assert tightened.on_another_node("show", "things@production") == 3
    assert "its decision was made under a policy that was replaced before" in capsys.readouterr().err


def test_unsigned_rollback_leads_to_no_version_of_before(
    tightened: AttackedScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    tightened.deliver("two")
    second = tightened.promote_signed()
    tightened.forge_return(action="rollback", withdrawn=second, reason="so")
    assert tightened.on_another_node("show", "things@production") == 3
    assert "nobody who may roll back signed it" in capsys.readouterr().err


def test_signed_rollback_leads_to_a_version_of_before(tightened: AttackedScenario) -> None:
    tightened.deliver("two")
    tightened.promote_signed()
    words = ["rollback", "things@production", "--reason", "so", "--key", str(tightened.folder / "ines.pem")]
    assert not tightened.run(*words, identity=INES.name)
    assert not tightened.on_another_node("show", "things@production")


def test_unreachable_signatures_are_no_forgery(signed_decisions: AttackedScenario) -> None:
    scenario = signed_decisions
    scenario.deliver("one")
    scenario.promote_signed()
    node = scenario.node(cache="elsewhere")
    read_all = node.catalog.all

    def fail(*_: object) -> None:
        raise CatalogError("The store does not answer")

    node.catalog.all = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(CatalogError, match="does not answer"):
        node.catalog.ref("things", "production")
    node.catalog.all = read_all  # type: ignore[method-assign]
    assert node.catalog.ref("things", "production")


def test_column_named_signed_asks_for_no_signatures(tmp_path: Path) -> None:
    table = {"files": "*.csv", "columns": {"signed": "bool"}}
    change = {"approval": {"signed": True, "keys": {INES.name: read_public_key(make_key(tmp_path, "ines"))}}}
    keys: dict[str, Any] = {"contract": {"tables": {"things": table}}, "policy": {"change": change}}
    scenario = AttackedScenario(tmp_path, gates={"production": {"require": ["license"]}}, **keys)
    versions = [f"things@{scenario.deliver(text).digest}" for text in ("one", "two")]
    # The second decision is older than the first promotion, which only signed decisions must not be.
    for words in (["check", "--gate"], ["promote", "--to"]):
        for version in versions:
            assert not scenario.run(words[0], version, words[1], "production")
    assert not scenario.on_another_node("show", "things@production")


def test_truth_written_otherwise_asks_for_signatures(tmp_path: Path) -> None:
    asked = {"signed": "yes", "keys": {INES.name: read_public_key(make_key(tmp_path, "ines"))}}
    scenario = AttackedScenario(tmp_path, gates={"production": {"require": ["license", {"approval": asked}]}})
    scenario.deliver("one")
    scenario.promote_signed()
    scenario.forge_promotion(scenario.deliver("two").digest)
    assert scenario.on_another_node("show", "things@production") == 3
