"""Whatever evidence there is, a gate never accepts what it may not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prefect_stagegate.clock import stamp
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.gate.gate import decide
from prefect_stagegate.gate.records.attest import attest, decision_of, read_statement, statement_digest
from prefect_stagegate.model import (
    Approval,
    ApprovalRequest,
    Decision,
    DecisionOutcome,
    Evidence,
    Finding,
    Identity,
    Outcome,
    Severity,
)
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import DIGEST, ENVIRONMENT, NOW

ORDER = (Outcome.PASS, Outcome.WAIVED, Outcome.WARN, Outcome.INCONCLUSIVE, Outcome.FAIL)
"""From good to bad. `NOT_APPLICABLE` is no answer, and so stands nowhere in it."""
NAMES = ("schema", "nonempty", "space", "owner", "approval")


Case = tuple[list[Requirement], list[Evidence]]
FAVOURABLE = (Outcome.PASS, Outcome.WARN, Outcome.NOT_APPLICABLE)


@st.composite
def answers(draw: st.DrawFn, name: str, among: tuple[Outcome, ...], ends: tuple[str, ...]) -> Evidence:
    outcome = draw(st.sampled_from(among))
    waits = draw(st.booleans()) if outcome is Outcome.INCONCLUSIVE else False
    return Evidence(
        name, outcome, "", "data", expires=draw(st.sampled_from(ends)), awaiting=("infra",) if waits else ()
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A gate and what is known: mostly one answer to each check that still holds, sometimes two or none."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    gate = [Requirement(name, draw(st.sampled_from(Severity)), {}) for name in names]
    among = draw(st.sampled_from([FAVOURABLE, (*FAVOURABLE, Outcome.FAIL), (Outcome.PASS, Outcome.INCONCLUSIVE)]))
    ends = draw(st.sampled_from([("",), ("", stamp(NOW + timedelta(seconds=1))), ("", stamp(NOW))]))
    answered = names[draw(st.sampled_from([0, 0, 0, 1])) :] + draw(st.lists(st.sampled_from(NAMES), max_size=2))
    return gate, [draw(answers(name, among, ends)) for name in answered]


def holding(evidence: list[Evidence]) -> list[Evidence]:
    return [answer for answer in evidence if not answer.expires or answer.expires > stamp(NOW)]


@given(cases())
def test_acceptance_needs_an_answer_to_each_and_no_failure(case: Case) -> None:
    gate, evidence = case
    if decide(gate, evidence, at=NOW) is not DecisionOutcome.ACCEPTED:
        return
    assert gate
    for requirement in gate:
        known = [answer.outcome for answer in holding(evidence) if answer.check == requirement.check]
        assert known
        if requirement.severity is Severity.BLOCKING:
            assert not {Outcome.FAIL, Outcome.INCONCLUSIVE}.intersection(known)


@given(cases())
def test_waiting_means_that_only_people_are_missing(case: Case) -> None:
    gate, evidence = case
    if decide(gate, evidence, at=NOW) is not DecisionOutcome.WAITING:
        return
    agreed = [replace(answer, outcome=Outcome.PASS, awaiting=()) if answer.awaiting else answer for answer in evidence]
    assert decide(gate, agreed, at=NOW) is DecisionOutcome.ACCEPTED


@given(cases(), st.data())
def test_order_does_not_matter(case: Case, data: st.DataObject) -> None:
    gate, evidence = case
    shuffled, other = data.draw(st.permutations(evidence)), data.draw(st.permutations(gate))
    assert decide(other, shuffled, at=NOW) is decide(gate, evidence, at=NOW)


@given(cases(), st.data())
def test_worse_evidence_never_helps(case: Case, data: st.DataObject) -> None:
    gate, evidence = case
    before = decide(gate, evidence, at=NOW)
    for index, answer in enumerate(evidence):
        if answer.outcome in ORDER:
            worse = data.draw(st.sampled_from(ORDER[ORDER.index(answer.outcome) :]))
            evidence[index] = replace(answer, outcome=worse, awaiting=())
    after = decide(gate, evidence, at=NOW)
    if before is not DecisionOutcome.ACCEPTED:
        assert after is not DecisionOutcome.ACCEPTED
    if before is DecisionOutcome.REFUSED:
        assert after is DecisionOutcome.REFUSED


@given(cases())
def test_without_evidence_for_a_check_there_is_no_acceptance(case: Case) -> None:
    gate, evidence = case
    for requirement in gate:
        without = [answer for answer in evidence if answer.check != requirement.check]
        assert decide(gate, without, at=NOW) in (DecisionOutcome.INCONCLUSIVE, DecisionOutcome.REFUSED)


@given(cases())
def test_evidence_that_expired_is_as_good_as_none(case: Case) -> None:
    gate, evidence = case
    assert decide(gate, evidence, at=NOW) is decide(gate, holding(evidence), at=NOW)


texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
full_answers = st.builds(
    Evidence,
    check=st.sampled_from(NAMES),
    outcome=st.sampled_from(Outcome),
    summary=texts,
    owner=st.sampled_from(["data", "infra"]),
    severity=st.sampled_from(Severity),
    findings=st.lists(st.builds(Finding, texts, texts, texts, st.sampled_from(Outcome)), max_size=2).map(tuple),
    measured=st.dictionaries(st.text(), json_values, max_size=2),
    binding=st.dictionaries(st.text(), st.text(), max_size=2),
    at=st.just(stamp(NOW)),
    expires=st.sampled_from(["", stamp(NOW)]),
    awaiting=st.lists(st.sampled_from(["infra", "data"]), max_size=2).map(tuple),
)
decisions = st.builds(
    Decision,
    dataset=st.just("nycflights"),
    digest=st.just(DIGEST),
    target=st.just("production"),
    outcome=st.sampled_from(DecisionOutcome),
    checks=st.lists(full_answers, max_size=4).map(tuple),
    policy=st.just("sha256:" + "a" * 64),
    environment=st.just(ENVIRONMENT.fingerprint),
    at=st.just(stamp(NOW)),
    expires=st.sampled_from(["", stamp(NOW)]),
    requester=st.text(max_size=10),
)
REQUEST = ApprovalRequest(
    "r1", "nycflights", DIGEST, "production", "sha256:" + "a" * 64, Identity("ana", "os-user"), stamp(NOW)
)
REPLY = Approval("r1", Identity("bob", "signature"), True, "looks good", stamp(NOW))


@given(decisions)
def test_decision_survives_being_attested_and_stored(decision: Decision) -> None:
    statement = attest(decision, ENVIRONMENT, REQUEST, [REPLY])
    stored = json.loads(json.dumps(statement))
    assert stored == statement
    assert decision_of(stored) == decision
    assert read_statement(stored).environment == ENVIRONMENT
    assert (read_statement(stored).request, read_statement(stored).approvals) == (REQUEST, (REPLY,))
    assert statement_digest(stored) == statement_digest(statement)


@given(decisions, st.sampled_from(DecisionOutcome))
def test_changed_outcome_is_noticed(decision: Decision, outcome: DecisionOutcome) -> None:
    assume(outcome is not decision.outcome)
    statement = attest(decision, ENVIRONMENT)
    record = statement_digest(statement)
    statement["predicate"]["stagegate"]["decision"]["outcome"] = outcome.value
    assert statement_digest(statement) != record
    if DecisionOutcome.ACCEPTED in (decision.outcome, outcome):
        with pytest.raises(CorruptRecord):
            decision_of(statement)
