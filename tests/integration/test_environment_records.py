"""Environments as records of their own: shared by decisions, verified by their names, missed where they are read."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog import RefAction
from prefect_stagegate.catalog.gate_records import decision_numbers, newest_attestation, put_attestation
from prefect_stagegate.catalog.records import DirectoryRecords
from prefect_stagegate.errors import CatalogError, CorruptRecord, UnprovedEntry
from prefect_stagegate.gate.records.attest import attest, read_statement
from prefect_stagegate.jobs.environment import accepted_in
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.review.attestations import AttestationVerdict, envelope_of, verify_attestation
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.model import Address
from tests.support.keys import new_key
from tests.support.scenario import ADA, Scenario
from tests.support.versions import put_environment, whole_statement

THINGS, PILOT, PRODUCTION = (Address("things", ref) for ref in ("", "pilot", "production"))
GATES = {
    "pilot": {"require": ["license"]},
    "production": {"extends": "pilot", "require": ["owner"]},
}


class EnvironmentScenario(Scenario):
    """A scenario whose environments and log entries tests look at."""

    @property
    def environments(self) -> list[Path]:
        return sorted((self.folder / "catalog/environments").iterdir())

    def entry(self, seq: int = 1, ref: str = "pilot") -> Path:
        return self.folder / f"catalog/datasets/things/refs/{ref}/{seq:08d}.json"

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the decision's extension in the pilot's first entry, as somebody who writes to the catalog can."""
        entry = json.loads(self.entry().read_bytes())
        change(entry["attestation"]["predicate"]["stagegate"])
        self.entry().write_text(json.dumps(entry))
        self.on["cache"] = self.folder / "another"  # a node that remembers nothing of the log


@pytest.fixture
def scenario(tmp_path: Path) -> EnvironmentScenario:
    scenario = EnvironmentScenario(tmp_path, gates=GATES)
    scenario.deliver("one")
    scenario.promote("pilot")
    return scenario


# ── what is stored ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_decisions_share_one_record_of_their_environment(scenario: EnvironmentScenario) -> None:
    scenario.deliver("two")
    scenario.promote()
    (record,) = scenario.environments
    assert record.name == f"{hashlib.sha256(record.read_bytes()).hexdigest()}.json"
    assert len(record.read_bytes()) > 20_000
    records = [path for path in (scenario.folder / "catalog/datasets").rglob("*.json") if path.parts[-3] != "specs"]
    assert len(records) > 5
    assert max(path.stat().st_size for path in records) < 6000


def test_what_is_read_is_whole(scenario: EnvironmentScenario, capsys: pytest.CaptureFixture[str]) -> None:
    distributions = accepted_in(scenario.node(), PILOT).python.distributions
    assert "pytest" in distributions
    statement = json.loads(envelope_of(scenario.node(), PILOT))
    assert statement == newest_attestation(scenario.node().catalog, "things", scenario.head("pilot"), "pilot")
    assert read_statement(statement).environment.python.distributions == distributions
    assert not scenario.run("history", "things@pilot", "--json", "--full")
    (move,) = (line for line in json.loads(capsys.readouterr().out) if line["action"] == "promote")
    assert move["attestation"] == statement


def test_threads_read_an_environment_once(scenario: EnvironmentScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = [], DirectoryRecords.read

    def slow(records: DirectoryRecords, key: str) -> bytes | None:
        if key.startswith("environments/"):
            reads.append(key)
            time.sleep(0.05)  # so that others come while it is read
        return read(records, key)

    monkeypatch.setattr(DirectoryRecords, "read", slow)
    catalog, head = scenario.node().catalog, scenario.head("pilot")
    with ThreadPoolExecutor(4) as pool:
        statements = list(pool.map(lambda _: newest_attestation(catalog, "things", head, "pilot"), range(4)))
    assert all(statements)
    assert len(reads) == 1


def test_signature_is_of_the_whole_statement(
    scenario: EnvironmentScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(tmp_path / "key.pem")
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "key.pem"))
    scenario.deliver("two")
    scenario.promote("pilot")
    exported = tmp_path / "exported.json"
    exported.write_bytes(envelope_of(scenario.node(), PILOT))
    for source in ("things@pilot", exported):
        parts = verify_attestation(scenario.node(), source, keys=[key.public])
        assert {part.verdict for part in parts} == {AttestationVerdict.HOLDS}
    # Without the catalog, an exported one still says what it was signed with.
    elsewhere = Scenario(scenario.folder / "nas", "other")
    verdicts = {part.what: part.verdict for part in verify_attestation(elsewhere.node(), exported, keys=[key.public])}
    assert verdicts["contents"] is verdicts["signature"] is AttestationVerdict.HOLDS


def test_earlier_entry_is_whole_and_goes_on(
    scenario: EnvironmentScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(tmp_path / "key.pem")
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "key.pem"))
    monkeypatch.setenv("STAGEGATE_VERIFICATION_KEYS", key.public)
    scenario.deliver("two")
    first = scenario.promote("production")
    # As releases before wrote it; nobody read it yet.
    path = scenario.entry(ref="production")
    entry = json.loads(path.read_bytes())
    entry["attestation"] = json.loads(json.dumps(whole_statement(scenario.node().catalog, entry["attestation"])))
    path.write_text(json.dumps(entry))
    on = EnvironmentScenario(tmp_path, gates=GATES)
    on.on["cache"] = tmp_path / "another"
    on.deliver("three")
    on.promote()
    rollback(on.node(), PRODUCTION, reason="worse")
    assert on.head("production") == first
    assert on.entry(3, "production").stat().st_size < 6000 < path.stat().st_size
    (chain,) = verify_history(on.node(cache="new"), PRODUCTION, [key.public])
    assert (chain.entries, chain.signed, chain.problems) == (3, 3, ())


# ── records that are lost or changed ────────────────────────────────────────────────────────────────────────────────


def test_lost_environment_is_named_by_what_reads_it(
    scenario: EnvironmentScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = scenario.environments
    record.unlink()
    for words in (
        ["env", "diff", "things@pilot"],
        ["verify-attestation", "things@pilot"],
        ["history", "things", "--json"],
    ):
        assert scenario.run(*words) == 3
        output = capsys.readouterr()
        assert record.name in output.out + output.err
    (chain,) = verify_history(scenario.node(), PILOT)
    assert record.name in chain.problems[0]
    assert scenario.run("promote", "things", "--to", "pilot") == 3
    assert record.name in capsys.readouterr().err


def test_lost_environment_keeps_nobody_from_going_back(
    scenario: EnvironmentScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    first = scenario.head("pilot")
    scenario.deliver("two")
    scenario.promote("pilot")
    (record,) = scenario.environments
    record.unlink()
    assert not scenario.run("path", "things@pilot")
    assert not scenario.run("history", "things@pilot")
    assert "1 check, requested by ada" in capsys.readouterr().out
    rollback(scenario.node(), PILOT, reason="worse")
    assert scenario.head("pilot") == first


def test_signed_entry_without_its_environment_is_not_followed(
    scenario: EnvironmentScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(tmp_path / "key.pem")
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "key.pem"))
    scenario.deliver("two")
    scenario.promote("pilot")
    (record,) = scenario.environments
    record.unlink()
    monkeypatch.setenv("STAGEGATE_VERIFICATION_KEYS", key.public)
    with pytest.raises(UnprovedEntry, match=f"proved: The catalog's record environments/{record.name} is gone"):
        scenario.node(cache="another").catalog.resolve(PILOT)


def test_nothing_names_an_environment_that_was_not_written(
    scenario: EnvironmentScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, digest = scenario.node().catalog, scenario.head("pilot")
    statement, head = newest_attestation(catalog, "things", digest, "pilot"), catalog.ref("things", "pilot")
    assert statement
    for record in scenario.environments:
        record.unlink()

    def refuse(*_: object) -> None:
        raise CatalogError("No space left")

    monkeypatch.setattr(DirectoryRecords, "replace", refuse)
    with pytest.raises(CatalogError, match="No space left"):
        catalog.move_ref("things", "pilot", digest, head=head, action=RefAction.PROMOTE, who=ADA, attestation=statement)
    with pytest.raises(CatalogError, match="No space left"):
        put_attestation(catalog, "things", digest, "pilot", statement)
    assert catalog.ref_log("things", "pilot").count() == decision_numbers(catalog, "things", digest)["pilot"] == 1


# ── records that were exchanged ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("signed", [False, True])
def test_another_environment_is_not_believed(
    scenario: EnvironmentScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, signed: bool
) -> None:
    key = new_key(tmp_path / "key.pem")
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "key.pem"))
    check(scenario.node(), PILOT, "pilot")
    attested = read_statement(
        newest_attestation(scenario.node().catalog, "things", scenario.head("pilot"), "pilot") or {}
    )
    other = replace(attested.environment, image="sha256:" + "0" * 64)
    # A record under its right name, which the pilot's entry names instead.
    stored = put_environment(scenario.node().catalog, attest(attested.decision, other))
    scenario.edit(lambda extension: extension.update(environment=stored["predicate"]["stagegate"]["environment"]))
    if signed:
        scenario.edit(lambda extension: extension["decision"].update(environment=other.fingerprint))
        parts = {
            part.what: part.verdict for part in verify_attestation(scenario.node(), "things@pilot", keys=[key.public])
        }
        assert parts["contents"] is AttestationVerdict.HOLDS
        assert parts["signature"] is AttestationVerdict.FAILS
        return
    with pytest.raises(CorruptRecord, match="its environment does not match"):
        accepted_in(scenario.node(), PILOT)
    assert verify_history(scenario.node(), PILOT)[0].problems


@pytest.mark.parametrize("name", ["sha256:../datasets/things/probes", "sha256:" + "0" * 63, "", "{}"])
def test_entry_that_names_no_environment_is_damaged(scenario: EnvironmentScenario, name: str) -> None:
    scenario.edit(lambda extension: extension.update(environment=name))
    with pytest.raises(CorruptRecord, match="Invalid attestation: environment"):
        accepted_in(scenario.node(), PILOT)
