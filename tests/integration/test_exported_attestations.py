"""Attestations as others read them: in-toto's own models, a JSON Schema, and tools that verify DSSE envelopes."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from prefect_stagegate.catalog.gate_records import SIGNATURES, decided_versions, newest_attestation, read_attestations
from prefect_stagegate.clock import now
from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.records.attest import statement_digest
from prefect_stagegate.gate.records.predicates import DECISION_PREDICATE, AttestationForm, decision_schema
from prefect_stagegate.gate.records.signing import read_signing_key
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.waive import waive
from prefect_stagegate.jobs.review.attestations import AttestationVerdict, envelope_of, verify_attestation
from prefect_stagegate.model import Address, DecisionOutcome
from tests.support.scenario import INES, Scenario
from tests.support.transcript import BLOCK, reader

FLIGHTS, PILOT, PRODUCTION = (Address("nycflights", ref) for ref in ("", "pilot", "production"))
APPROVAL: dict[str, Any] = {"approval": {"count": 1, "from": ["infra"]}}
GATES = {"pilot": {"require": ["license"]}, "production": {"extends": "pilot", "require": ["digest", APPROVAL]}}
RECORDED, TEST_RESULT, DECISION = AttestationForm
TYPES = {
    RECORDED: "https://in-toto.io/attestation/test-result/v0.1",
    TEST_RESULT: "https://in-toto.io/attestation/test-result/v0.1",
    DECISION: DECISION_PREDICATE,
}
PAGE = Path(__file__).parents[2] / "docs/how-to/verify.md"


def write_keys(folder: Path, name: str) -> Path:
    """Write `NAME.pem` and its public half `NAME.pub.pem`, as openssl does; returns the latter."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.touch(0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The public half of the key that signs each decision."""
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "key.pem"))
    return write_keys(tmp_path, "key")


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, "nycflights", gates=GATES)


@pytest.fixture
def promoted(scenario: Scenario, key: Path) -> Scenario:
    """A version in production, with an approval."""
    scenario.deliver("one")
    scenario.promote()
    return scenario


def export(scenario: Scenario, form: AttestationForm) -> dict[str, Any]:
    exported: dict[str, Any] = json.loads(envelope_of(scenario.node(), PRODUCTION, form=form))
    return exported


def statement_in(exported: dict[str, Any]) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads(base64.b64decode(exported["payload"]))
    return statement


# ── predicates ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", AttestationForm)
def test_statements_are_in_totos(promoted: Scenario, form: AttestationForm) -> None:
    statement = statement_in(export(promoted, form))
    message = json_format.ParseDict(statement, StatementMessage())
    Statement.copy_from_pb(message).validate()
    assert message.predicate_type == TYPES[form]
    assert [dict(subject.digest) for subject in message.subject] == [{"sha256": promoted.head("production")[7:]}]


def test_test_result_has_no_field_that_in_toto_does_not_know(promoted: Scenario) -> None:
    strict = json_format.ParseDict(
        statement_in(export(promoted, TEST_RESULT))["predicate"], test_result_pb2.TestResult()
    )
    assert (strict.result, strict.passed_tests) == ("PASSED", ["license", "digest", "approval"])
    assert [item.name for item in strict.configuration] == ["gate/production", "policy"]
    for item in strict.configuration:
        ResourceDescriptor.copy_from_pb(item).validate()
    # What the catalog holds says the same to readers who ignore what they don't know, as in-toto demands.
    recorded = statement_in(export(promoted, RECORDED))["predicate"]
    assert json_format.ParseDict(recorded, test_result_pb2.TestResult(), ignore_unknown_fields=True) == strict


def decide_in_all_ways(scenario: Scenario) -> None:
    """Record decisions that were accepted, refused, waited, approved, waived and declined."""
    scenario.deliver("one")
    scenario.promote()
    waived = Address("nycflights", scenario.deliver("two", license="CC-BY-NC-4.0").digest)
    check(scenario.node(), waived, "pilot")
    waive(scenario.node(INES), waived, "pilot", "license", reason="granted by mail", until=now() + timedelta(days=7))
    check(scenario.node(), waived, "pilot")
    declined = Address("nycflights", scenario.deliver("three").digest)
    scenario.promote("pilot")
    check(scenario.node(), declined, "production")
    approve(scenario.node(INES), declined, "production", approved=False, reason="too late")
    check(scenario.node(), declined, "production")


def test_all_decisions_keep_the_json_schema(scenario: Scenario) -> None:
    decide_in_all_ways(scenario)
    schema = jsonschema.Draft202012Validator(decision_schema())
    schema.check_schema(schema.schema)
    outcomes = set()
    catalog = scenario.node().catalog
    for digest, target in decided_versions(catalog, "nycflights"):
        for statement in read_attestations(catalog, "nycflights", digest, target):
            schema.validate(statement["predicate"]["stagegate"])
            outcomes.add(statement["predicate"]["stagegate"]["decision"]["outcome"])
    assert outcomes >= {DecisionOutcome.ACCEPTED, DecisionOutcome.REFUSED, DecisionOutcome.WAITING}


@pytest.mark.parametrize(
    "edit",
    [
        lambda predicate: predicate.update(format=4),
        lambda predicate: predicate.pop("environment"),
        lambda predicate: predicate["decision"].update(outcome="splendid"),
        lambda predicate: predicate["decision"]["checks"][0].update(severity="none"),
        lambda predicate: predicate["approvals"][0].update(approved="yes"),
    ],
)
def test_schema_refuses_other_values(promoted: Scenario, edit: Callable[[dict[str, Any]], None]) -> None:
    predicate = statement_in(export(promoted, DECISION))["predicate"]
    edit(predicate)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(predicate, decision_schema())


# ── signatures of exported forms ────────────────────────────────────────────────────────────────────────────────────


def verdicts(scenario: Scenario, path: Path, key: Path) -> dict[str, AttestationVerdict]:
    return {part.what: part.verdict for part in verify_attestation(scenario.node(), path, keys=[str(key)])}


def test_decision_form_is_verified_against_the_log(promoted: Scenario, key: Path, tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(export(promoted, DECISION)))
    assert set(verdicts(promoted, path, key).values()) == {AttestationVerdict.HOLDS}
    edited = statement_in(export(promoted, DECISION))
    edited["predicate"]["decision"]["checks"][0]["summary"] = "looked twice"
    path.write_text(json.dumps(read_signing_key(tmp_path / "key.pem", _no_passphrase).sign(edited)))
    assert verdicts(promoted, path, key)["log"] is AttestationVerdict.FAILS
    edited["predicate"]["decision"] = None
    path.write_text(json.dumps(edited))
    assert verdicts(promoted, path, key) == {"contents": AttestationVerdict.FAILS}


def _no_passphrase(path: Path) -> str:
    raise AssertionError(path)


def test_form_is_signed_only_if_the_record_was(
    promoted: Scenario, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_keys(tmp_path, "other")
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "other.pem"))
    words = ("verify-attestation", "nycflights@production", "--export", str(tmp_path / "exported.json"))
    assert promoted.run(*words, "--as", "test-result") == 2
    assert "can't be signed as test-result: none of the keys signed exactly this" in capsys.readouterr().err
    assert promoted.run(*words, "--as", "test-result", "--key", str(key)) == 0
    assert "payload" in json.loads((tmp_path / "exported.json").read_bytes())
    monkeypatch.delenv("STAGEGATE_SIGNING_KEY")
    assert promoted.run(*words, "--as", "test-result") == 0
    assert "predicateType" in json.loads((tmp_path / "exported.json").read_bytes())


def test_changed_record_is_not_signed_again(promoted: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    entry = promoted.folder / "catalog/datasets/nycflights/refs/production/00000001.json"
    record = json.loads(entry.read_bytes())
    record["attestation"]["predicate"]["stagegate"]["decision"]["checks"][0]["summary"] = "looked twice"
    entry.write_text(json.dumps(record))
    promoted.on["cache"] = promoted.folder / "another-node"  # which remembers nothing of the log
    exported = promoted.folder / "exported.json"
    words = ("verify-attestation", "nycflights@production", "--export", str(exported), "--as", "decision")
    assert promoted.run(*words) == 2
    assert "can't be signed as decision: it is not signed" in capsys.readouterr().err
    assert not exported.exists()


def test_envelope_of_another_decision_is_not_exported(promoted: Scenario) -> None:
    catalog = promoted.node().catalog
    statement = newest_attestation(catalog, "nycflights", promoted.head("pilot"), "pilot")
    assert statement
    (accepted,) = catalog.all(SIGNATURES, "nycflights", statement_digest(statement))
    recorded = statement_digest(statement_in(export(promoted, RECORDED)))
    catalog.create(SIGNATURES, dict(accepted), "nycflights", recorded, "0" * 64)
    assert catalog.all(SIGNATURES, "nycflights", recorded)[0] == accepted
    assert statement_digest(statement_in(export(promoted, RECORDED))) == recorded


def test_attestation_without_an_end_is_refused(promoted: Scenario) -> None:
    with pytest.raises(UsageError, match="/dev/zero is larger than 64 MiB"):
        verify_attestation(promoted.node(), Path("/dev/zero"))


def test_export_that_cannot_be_written_is_bad_usage(promoted: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("verify-attestation", "nycflights@production")
    assert promoted.run(*words, "--export", str(promoted.folder)) == 2
    assert "The attestation can't be written to" in capsys.readouterr().err
    assert promoted.run(*words, "--as", "decision") == 2
    assert "--as belongs to --export" in capsys.readouterr().err


# ── other tools ─────────────────────────────────────────────────────────────────────────────────────────────────────

Edit = Callable[[dict[str, Any]], None]


def _edit_statement(edit: Edit) -> Edit:
    def changed(envelope: dict[str, Any]) -> None:
        statement = statement_in(envelope)
        edit(statement)
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    return changed


ATTACKS: dict[str, Edit] = {
    "another payload type": lambda envelope: envelope.update(payloadType="application/json"),
    "another result": _edit_statement(lambda statement: statement["predicate"].update(result="WARNED")),
    "another subject": _edit_statement(lambda statement: statement["subject"][0]["digest"].update(sha256="0" * 64)),
    "a second subject": _edit_statement(
        lambda statement: statement["subject"].append({"name": "nycflights", "digest": {"sha256": "0" * 64}})
    ),
    "another signature": lambda envelope: envelope["signatures"][0].update(sig=base64.b64encode(bytes(64)).decode()),
    "no signature": lambda envelope: envelope.update(signatures=[]),
}


def proved_by_securesystemslib(envelope: dict[str, Any], public: Path) -> bool:
    key = SSlibKey.from_crypto(load_pem_public_key(public.read_bytes()))
    try:
        Envelope.from_dict(json.loads(json.dumps(envelope))).verify([key], 1)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True


@pytest.mark.parametrize("form", AttestationForm)
def test_securesystemslib_verifies_by_the_pem_alone(
    promoted: Scenario, key: Path, tmp_path: Path, form: AttestationForm
) -> None:
    envelope = export(promoted, form)
    assert proved_by_securesystemslib(envelope, key)
    assert not proved_by_securesystemslib(envelope, write_keys(tmp_path, "other"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_edited_envelope_is_refused_here_and_by_securesystemslib(
    promoted: Scenario, key: Path, tmp_path: Path, attack: str
) -> None:
    envelope = export(promoted, RECORDED)
    ATTACKS[attack](envelope)
    assert not proved_by_securesystemslib(envelope, key)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(envelope))
    assert AttestationVerdict.FAILS in verdicts(promoted, path, key).values()


def test_second_subject_is_refused_whoever_signed_it(promoted: Scenario, key: Path, tmp_path: Path) -> None:
    signing = read_signing_key(tmp_path / "key.pem", _no_passphrase)
    for form in (RECORDED, DECISION):
        statement = statement_in(export(promoted, form))
        statement["subject"].append({"name": "nycflights", "digest": {"sha256": "0" * 64}})
        path = tmp_path / "edited.json"
        path.write_text(json.dumps(signing.sign(statement)))
        assert verdicts(promoted, path, key) == {"contents": AttestationVerdict.FAILS}


def cosign(folder: Path, public: Path, form: AttestationForm, envelope: dict[str, Any], rows: Path) -> str:
    """What cosign says at its end."""
    signature = folder / "envelope.json"
    signature.write_text(json.dumps(envelope))
    command = ["cosign", "verify-blob-attestation", "--key", str(public), "--signature", str(signature)]
    command += ["--type", TYPES[form], "--insecure-ignore-tlog", str(rows)]
    # A home of its own: nothing that another run has fetched is used.
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    last: str = done.stderr.splitlines()[-1]
    assert (done.returncode == 0) == (last == "Verified OK")
    return last


@pytest.mark.system
def test_cosign_verifies_each_form_against_the_rows(
    promoted: Scenario, key: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert promoted.run("show", "nycflights@production", "--rows") == 0
    rows, other_rows = tmp_path / "rows", tmp_path / "other-rows"
    rows.write_bytes(capfdbinary.readouterr().out)
    promoted.deliver("two")
    assert promoted.run("show", "nycflights", "--rows") == 0
    other_rows.write_bytes(capfdbinary.readouterr().out)
    for form in AttestationForm:
        envelope = export(promoted, form)
        assert cosign(tmp_path, key, form, envelope, rows) == "Verified OK"
        assert "no matching subject digest" in cosign(tmp_path, key, form, envelope, other_rows)
    envelope = export(promoted, DECISION)
    assert "invalid predicate type" in cosign(tmp_path, key, TEST_RESULT, envelope, rows)
    assert "signatures do not match threshold" in cosign(
        tmp_path, write_keys(tmp_path, "other"), DECISION, envelope, rows
    )
    for attack, edit in ATTACKS.items():
        envelope = export(promoted, RECORDED)
        edit(envelope)
        assert cosign(tmp_path, key, RECORDED, envelope, rows) != "Verified OK", attack


def envelope_around(payload: bytes) -> bytes:
    return json.dumps({"payload": base64.b64encode(payload).decode(), "payloadType": "x", "signatures": []}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        envelope_around(b"[" * 200_000),
        rb'{"_type": "\ud800"}',
        envelope_around(rb'{"_type": "\ud800"}'),
        b'{"_type": NaN}',
    ],
    ids=["deep", "deep payload", "half a character", "half a character in a payload", "no number"],
)
def test_file_without_an_attestation_is_refused(scenario: Scenario, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "attestation.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="holds no attestation"):
        verify_attestation(scenario.node(), file)


@pytest.mark.system
def test_commands_of_the_page_verify_a_decision(promoted: Scenario, tmp_path: Path) -> None:
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (commands,) = [text for part in section if "cosign" in part for mark, text in BLOCK.findall(part) if mark == "sh"]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env={**os.environ, **reader(promoted.folder), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Verified OK" in done.stderr
    assert done.stdout.splitlines()[-2:] == ["PASSED", "gate/production"]
