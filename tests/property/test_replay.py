"""Whatever happens, in whatever order, nothing unknown gets through; and a record can be decided again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.clock import stamp
from prefect_stagegate.gate import CHECKS, CheckContext
from prefect_stagegate.gate.evidence_rules import parameters_digest
from prefect_stagegate.gate.gate import judge, plan_checks
from prefect_stagegate.gate.overrides import LONGEST_WAIVER, passes_in_a_row
from prefect_stagegate.gate.records.attest import attest, decision_of
from prefect_stagegate.gate.records.replay import AGAIN, flips, replay
from prefect_stagegate.model import (
    Decision,
    DecisionOutcome,
    Evidence,
    EvidenceRevocation,
    Identity,
    Outcome,
    Revocation,
    Severity,
    Waiver,
    person_key,
)
from prefect_stagegate.spec import Gate, Requirement
from prefect_stagegate.testing.contexts import DIGEST, ENVIRONMENT, NOW, OTHER_DIGEST, check_context

NAMES = ("schema", "space", "freshness", "digest", "approval")
PEOPLE = ("ana@example.org", " ANA@example.org", "ines@example.org")
"""The first two are the requester."""
OUTCOMES = (*[Outcome.PASS] * 2, Outcome.WARN, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_APPLICABLE)
HOURS = st.integers(-48, 24 * 40).map(lambda hours: timedelta(hours=hours))


def parameters(requirement: Requirement) -> str:
    return parameters_digest(CHECKS[requirement.check], requirement)


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=4))
    severities = st.sampled_from([Severity.BLOCKING, Severity.BLOCKING, Severity.WARNING])
    requirements = tuple(Requirement(name, draw(severities), {}, draw(st.sampled_from([1, 1, 3]))) for name in names)
    return Gate("production", "pilot", requirements, "sha256:" + draw(st.sampled_from("ab")) * 64)


@st.composite
def answers(draw: st.DrawFn, gate: Gate, at: datetime) -> Evidence:
    requirement = draw(st.sampled_from(gate.requirements))
    outcome = draw(st.sampled_from(OUTCOMES))
    ends = draw(st.sampled_from(["", "", stamp(at + draw(HOURS))]))
    waits = outcome is Outcome.INCONCLUSIVE and draw(st.booleans())
    return Evidence(
        requirement.check,
        outcome,
        draw(st.sampled_from(["", "looked"])),
        "data",
        binding={"version": DIGEST, "parameters": parameters(requirement)},
        at=stamp(at),
        expires=ends,
        awaiting=("infra",) if waits else (),
    )


@st.composite
def granted(draw: st.DrawFn, gate: Gate, at: datetime) -> Waiver:
    requirement = draw(st.sampled_from(gate.requirements))
    revoked = Revocation(Identity("ana", "declared"), stamp(at + draw(HOURS)), "no")
    return Waiver(
        id=draw(st.uuids()).hex,
        dataset="nycflights",
        digest=draw(st.sampled_from([DIGEST, DIGEST, OTHER_DIGEST])),
        target=draw(st.sampled_from(["production", "production", "pilot"])),
        check=requirement.check,
        parameters=draw(st.sampled_from([parameters(requirement), parameters(requirement), "sha256:0"])),
        reason="known",
        approver=Identity(draw(st.sampled_from(PEOPLE)), "declared"),
        requester="ana@example.org",
        at=stamp(at + draw(st.sampled_from([timedelta(0), timedelta(hours=1)]))),
        until=stamp(at + draw(HOURS)),
        revoked=draw(st.sampled_from([None, None, revoked])),
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[CheckContext, list[Evidence]]:
    """A gate, and what happened until somebody decides: answers and waivers while the clock went on, or back."""
    gate, now = draw(gates()), NOW
    record: list[Evidence] = []
    waivers: list[Waiver] = []
    for what in draw(st.lists(st.sampled_from(["answer", "answer", "answer", "waiver", "clock"]), max_size=12)):
        if what == "answer":
            record.append(draw(answers(gate, now)))
        elif what == "waiver":
            waivers.append(draw(granted(gate, now)))
        else:
            now += draw(HOURS)
    return check_context(gate=gate, now=now, waivers=tuple(waivers)), record


def newest(record: list[Evidence]) -> list[Evidence]:
    return list({answer.check: answer for answer in record}.values())


@given(histories())
def test_no_history_accepts_an_unknown_or_unwaived_failure(
    history: tuple[CheckContext, list[Evidence]],
) -> None:
    context, record = history
    decision = judge(context, newest(record), record)
    if not decision.accepted:
        return
    at = stamp(context.now)
    holding = {evidence.check: evidence for evidence in newest(record) if not evidence.expires or evidence.expires > at}
    for requirement in context.gate.requirements:
        assert requirement.check in holding
        outcome = holding[requirement.check].outcome
        if requirement.severity is Severity.BLOCKING:
            assert outcome is not Outcome.INCONCLUSIVE
            if outcome is Outcome.FAIL:
                assert any(counts(waiver, requirement, at) for waiver in context.waivers)
            if outcome in (Outcome.PASS, Outcome.WARN):
                assert passes_in_a_row(holding[requirement.check], record) >= requirement.consecutive
    assert not decision.expires or decision.expires > at


def counts(waiver: Waiver, requirement: Requirement, at: str) -> bool:
    """What the specification says of a waiver, in other words than the code's."""
    lasts = datetime.fromisoformat(waiver.until) - datetime.fromisoformat(waiver.at)
    return (
        (waiver.digest, waiver.target, waiver.check) == (DIGEST, "production", requirement.check)
        and requirement.check not in ("digest", "approval")
        and waiver.parameters == parameters(requirement)
        and person_key(waiver.approver.name) != "ana@example.org"
        and waiver.at <= at < waiver.until
        and lasts <= LONGEST_WAIVER
        and not (waiver.revoked and waiver.revoked.at <= at)
    )


@given(histories())
def test_a_decision_is_pure(history: tuple[CheckContext, list[Evidence]]) -> None:
    context, record = history
    assert judge(context, newest(record), record) == judge(context, newest(record), list(record))


@given(histories(), st.booleans())
def test_replay_under_the_same_policy_gives_the_same_decision(
    history: tuple[CheckContext, list[Evidence]], with_record: bool
) -> None:
    context, record = history
    decision = judge(context, newest(record), record)
    stored = decision_of(json.loads(json.dumps(attest(decision, ENVIRONMENT))))
    assert stored == decision
    known = [evidence for evidence in record if evidence in newest(record)] if with_record else []
    again = replay(stored, context.gate, known)
    assert again == decision
    assert flips(decision, again) == ()


@given(histories(), gates())
def test_a_replay_under_any_policy_accepts_only_what_is_known(
    history: tuple[CheckContext, list[Evidence]], other: Gate
) -> None:
    context, record = history
    decision = judge(context, newest(record), record)
    again = replay(decision, other, record)
    known = {evidence.check for evidence in record}
    if again.accepted:
        assert {requirement.check for requirement in other.requirements} <= known
    assert (again.policy, again.at, again.digest) == (other.policy, decision.at, decision.digest)


@given(st.floats(0, 1e6), st.integers(1, 300), st.integers(1, 300))
def test_figures_tell_what_other_limits_would_have_said(age: float, warn: int, more: int) -> None:
    limits = {"warn": f"{warn}h", "fail": f"{warn + more}h"}
    hours = age / 3600
    wanted = Outcome.PASS if hours < warn else Outcome.WARN if hours < warn + more else Outcome.FAIL
    outcome, _ = replayed("freshness", {"age_seconds": age}, limits)
    assert outcome is wanted


def replayed(name: str, measured: dict[str, Any], params: dict[str, Any]) -> tuple[Outcome, DecisionOutcome]:
    requirement = Requirement(name, Severity.BLOCKING, params)
    answer = Evidence(
        name, Outcome.PASS, "", "data", measured=measured, binding={"parameters": "sha256:other"}, at=stamp(NOW)
    )
    decision = Decision(
        *("nycflights", DIGEST, "pilot", DecisionOutcome.ACCEPTED, (answer,), "sha256:old"),
        *(ENVIRONMENT.fingerprint, stamp(NOW)),
    )
    again = replay(decision, Gate("pilot", None, (requirement,), "sha256:new"))
    return again.checks[0].outcome, again.outcome


def test_figures_that_do_not_tell_leave_it_open() -> None:
    assert replayed("freshness", {}, {"warn": "1h", "fail": "2h"}) == (
        Outcome.INCONCLUSIVE,
        DecisionOutcome.INCONCLUSIVE,
    )
    assert replayed("license", {"license": "MIT"}, {"allow": ["MIT"]})[0] is Outcome.INCONCLUSIVE
    assert AGAIN.keys() <= CHECKS.keys()


def test_replay_answers_a_new_check_from_the_record_only() -> None:
    context = check_context(gate=Gate("pilot", None, (Requirement("schema", Severity.BLOCKING, {}),), "sha256:a"))
    schema = Evidence("schema", Outcome.PASS, "", "data", at=stamp(NOW))
    space = Evidence("space", Outcome.FAIL, "full", "infra", at=stamp(NOW))
    decision = judge(context, [schema])
    both = replace(context.gate, requirements=(*context.gate.requirements, Requirement("space", Severity.BLOCKING, {})))
    assert replay(decision, both).outcome is DecisionOutcome.INCONCLUSIVE
    after = replay(decision, both, [space])
    assert after.outcome is DecisionOutcome.REFUSED
    assert [(flip.check, flip.before, flip.after) for flip in flips(decision, after)] == [
        ("space", "not required", "fail")
    ]
    later = replace(space, at=stamp(NOW + timedelta(seconds=1)))
    assert replay(decision, both, [later]).outcome is DecisionOutcome.INCONCLUSIVE


@given(histories(), st.data())
def test_revocation_ends_only_one_check_s_evidence(
    history: tuple[CheckContext, list[Evidence]], data: st.DataObject
) -> None:
    context, record = history
    check = data.draw(st.sampled_from([requirement.check for requirement in context.gate.requirements]))
    who, at = Identity("ines", "declared"), stamp(context.now)
    ahead = tuple(evidence.at for evidence in record if evidence.check == check and evidence.at > at)
    ended = EvidenceRevocation(
        dataset="nycflights", digest=DIGEST, check=check, reason="wrong", who=who, at=at, ahead=ahead
    )
    after = replace(context, revocations=(ended,))
    assert not judge(after, newest(record), record).accepted
    before, now = (
        {planned.requirement.check: planned for planned in plan_checks(asker, record)} for asker in (context, after)
    )
    assert now[check].evidence is None
    assert {name: planned for name, planned in before.items() if name != check} == {
        name: planned for name, planned in now.items() if name != check
    }


@given(histories())
def test_reused_pass_is_not_contradicted_by_a_later_answer(
    history: tuple[CheckContext, list[Evidence]],
) -> None:
    context, record = history
    for planned in plan_checks(context, record):
        kept = planned.evidence
        if kept is None or kept.outcome not in (Outcome.PASS, Outcome.WARN):
            continue
        same = [evidence for evidence in record if (evidence.check, evidence.binding) == (kept.check, kept.binding)]
        assert same[-1].outcome in (Outcome.PASS, Outcome.WARN, Outcome.NOT_APPLICABLE)
