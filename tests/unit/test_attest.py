from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.gate.records.attest import attest, read_statement, statement_digest
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome
from prefect_stagegate.testing.contexts import DIGEST, ENVIRONMENT

CHECKS = tuple(Evidence(outcome.value, outcome, "looked", "data") for outcome in Outcome)
DECISION = Decision(
    dataset="nycflights",
    digest=DIGEST,
    target="production",
    outcome=DecisionOutcome.REFUSED,
    checks=CHECKS,
    policy="sha256:" + "a" * 64,
    environment=ENVIRONMENT.fingerprint,
    at="2026-03-01T03:00:00.000000Z",
    requester="ana",
    adopted="sha256:" + "b" * 64,
)


def test_statement_reads_as_an_in_toto_test_result() -> None:
    statement = attest(DECISION, ENVIRONMENT)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "nycflights", "digest": {"sha256": DIGEST[7:]}}]
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    predicate = statement["predicate"]
    assert predicate["configuration"] == [
        {"name": "gate/production", "digest": {"sha256": "a" * 64}},
        {"name": "policy", "digest": {"sha256": "b" * 64}},
    ]
    assert predicate["passedTests"] == ["pass"]
    assert predicate["warnedTests"] == ["warn", "waived"]
    assert predicate["failedTests"] == ["fail", "inconclusive"]
    assert predicate["stagegate"]["verifier"]["name"] == "prefect-stagegate"
    assert predicate["stagegate"]["environment"] == ENVIRONMENT.to_json()


@pytest.mark.parametrize(
    ("outcome", "checks", "result"),
    [
        (DecisionOutcome.ACCEPTED, (Outcome.PASS, Outcome.NOT_APPLICABLE), "PASSED"),
        (DecisionOutcome.ACCEPTED, (Outcome.PASS, Outcome.WARN), "WARNED"),
        (DecisionOutcome.ACCEPTED, (Outcome.PASS, Outcome.FAIL), "WARNED"),
        (DecisionOutcome.REFUSED, (Outcome.FAIL,), "FAILED"),
        (DecisionOutcome.WAITING, (Outcome.INCONCLUSIVE,), "FAILED"),
        (DecisionOutcome.INCONCLUSIVE, (Outcome.INCONCLUSIVE,), "FAILED"),
    ],
)
def test_result_is_failed_unless_the_gate_accepted(
    outcome: DecisionOutcome, checks: tuple[Outcome, ...], result: str
) -> None:
    evidence = tuple(Evidence(f"check{number}", outcome, "", "data") for number, outcome in enumerate(checks))
    statement = attest(replace(DECISION, outcome=outcome, checks=evidence), ENVIRONMENT)
    assert statement["predicate"]["result"] == result


def test_statement_s_digest_is_independent_of_key_order() -> None:
    statement = attest(DECISION, ENVIRONMENT)
    assert statement_digest(dict(reversed(statement.items()))) == statement_digest(statement)


def _set(statement: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    inner: Any = statement
    for name in parents:
        inner = inner[int(name) if name.isdigit() else name]
    inner[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("subject.0.digest.sha256", "0" * 64),
        ("predicate.result", "PASSED"),
        ("predicate.failedTests", []),
        ("predicate.configuration.0.digest.sha256", "0" * 64),
        ("predicate.stagegate.format", 1),
        ("predicate.stagegate.decision.outcome", "splendid"),
        ("predicate.stagegate.environment.python", "2.7.18"),
        ("predicate.stagegate.decision.checks", "none"),
        ("predicate.stagegate", None),
        ("predicate", {}),
    ],
)
def test_statement_whose_parts_contradict_each_other_is_refused(path: str, value: object) -> None:
    statement = copy.deepcopy(attest(DECISION, ENVIRONMENT))
    assert read_statement(statement).decision == DECISION
    _set(statement, path, value)
    with pytest.raises(CorruptRecord, match="Invalid attestation"):
        read_statement(statement)
