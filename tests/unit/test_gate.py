from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from prefect_stagegate.clock import stamp
from prefect_stagegate.gate import CHECKS, CheckContext
from prefect_stagegate.gate.accepted import Accepted
from prefect_stagegate.gate.evidence_rules import parameters_digest, run_check
from prefect_stagegate.gate.gate import State, decide, judge, plan_checks
from prefect_stagegate.model import DecisionOutcome, Evidence, Identity, Outcome, Severity, Waiver
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import NOW, OTHER_DIGEST, a_spec, a_validation, check_context

ACCEPTED, REFUSED = DecisionOutcome.ACCEPTED, DecisionOutcome.REFUSED
INCONCLUSIVE, WAITING = DecisionOutcome.INCONCLUSIVE, DecisionOutcome.WAITING


def requirements(*names: str, severity: Severity = Severity.BLOCKING) -> list[Requirement]:
    return [Requirement(name, severity, {}) for name in names]


def answer(name: str, outcome: Outcome, **more: object) -> Evidence:
    return replace(Evidence(name, outcome, "", "data"), **more)  # type: ignore[arg-type]


WAITS = answer("approval", Outcome.INCONCLUSIVE, awaiting=("infra",))


@pytest.mark.parametrize(
    ("outcome", "decision"),
    [
        (Outcome.PASS, ACCEPTED),
        (Outcome.WARN, ACCEPTED),
        (Outcome.WAIVED, ACCEPTED),
        (Outcome.FAIL, REFUSED),
        (Outcome.INCONCLUSIVE, INCONCLUSIVE),
        (Outcome.NOT_APPLICABLE, ACCEPTED),
    ],
)
def test_blocking_check_decides_beside_one_that_passed(outcome: Outcome, decision: DecisionOutcome) -> None:
    evidence = [answer("nonempty", Outcome.PASS), answer("schema", outcome)]
    assert decide(requirements("nonempty", "schema"), evidence, at=NOW) is decision


@pytest.mark.parametrize("severity", [Severity.WARNING, Severity.INFO])
@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.WARN])
def test_warning_check_is_reported_and_decides_nothing(severity: Severity, outcome: Outcome) -> None:
    gate = requirements("nonempty") + requirements("schema", severity=severity)
    evidence = [answer("nonempty", Outcome.PASS), answer("schema", outcome)]
    assert decide(gate, evidence, at=NOW) is ACCEPTED


def test_empty_gate_accepts_nothing() -> None:
    assert decide([], [answer("schema", Outcome.PASS)], at=NOW) is INCONCLUSIVE


def test_gate_that_had_nothing_to_ask_accepts_nothing() -> None:
    assert decide(requirements("rollback"), [answer("rollback", Outcome.NOT_APPLICABLE)], at=NOW) is INCONCLUSIVE


@pytest.mark.parametrize("severity", Severity)
def test_check_without_evidence_is_inconclusive_at_any_severity(severity: Severity) -> None:
    gate = requirements("nonempty") + requirements("schema", severity=severity)
    assert decide(gate, [answer("nonempty", Outcome.PASS)], at=NOW) is INCONCLUSIVE


def test_expired_evidence_counts_as_none() -> None:
    for expires, decision in ((NOW, INCONCLUSIVE), (NOW + timedelta(microseconds=1), ACCEPTED)):
        evidence = [answer("schema", Outcome.PASS, expires=stamp(expires))]
        assert decide(requirements("schema"), evidence, at=NOW) is decision


def test_gate_waits_when_only_an_approval_is_missing() -> None:
    gate = requirements("schema", "approval")
    assert decide(gate, [answer("schema", Outcome.PASS), WAITS], at=NOW) is WAITING
    assert decide(gate, [answer("schema", Outcome.FAIL), WAITS], at=NOW) is REFUSED
    assert decide(gate, [answer("schema", Outcome.INCONCLUSIVE), WAITS], at=NOW) is INCONCLUSIVE
    assert decide(gate, [WAITS], at=NOW) is INCONCLUSIVE


def test_worse_of_two_answers_counts() -> None:
    both = [answer("schema", Outcome.PASS), answer("schema", Outcome.FAIL)]
    assert decide(requirements("schema"), both, at=NOW) is decide(requirements("schema"), both[::-1], at=NOW) is REFUSED


def test_answer_that_nobody_can_give_counts_above_one_that_waits() -> None:
    both = [WAITS, answer("approval", Outcome.INCONCLUSIVE)]
    gate = requirements("approval")
    assert decide(gate, both, at=NOW) is decide(gate, both[::-1], at=NOW) is INCONCLUSIVE


def pilot(**changes: object) -> CheckContext:
    gates = {"pilot": {"require": ["schema", {"space": {"severity": "warning"}}, "license"]}}
    return check_context(target="pilot", **{"spec": a_spec(gates=gates), **changes})  # type: ignore[arg-type]


def gathered(context: CheckContext) -> list[Evidence]:
    return [run_check(CHECKS[requirement.check], requirement, context) for requirement in context.gate.requirements]


def test_decision_binds_version_policy_environment_and_expiry() -> None:
    context = pilot()
    decision = judge(context, gathered(context))
    assert decision.accepted
    assert (decision.digest, decision.policy) == (context.digest, context.gate.policy)
    assert decision.environment == context.environment.fingerprint
    assert decision.expires == stamp(NOW + timedelta(minutes=5))  # that of the space on this node
    assert [check.severity for check in decision.checks] == ["blocking", "warning", "blocking"]


def test_decision_has_a_line_for_what_is_missing() -> None:
    context = pilot()
    decision = judge(context, gathered(context)[1:])
    assert decision.outcome is INCONCLUSIVE
    assert [(check.check, check.outcome) for check in decision.checks] == [
        ("schema", Outcome.INCONCLUSIVE),
        ("space", Outcome.PASS),
        ("license", Outcome.PASS),
    ]


def test_failed_contract_refuses() -> None:
    context = pilot(validation_of=lambda: a_validation(outcome=Outcome.FAIL))
    assert judge(context, gathered(context)).outcome is REFUSED


def states(context: CheckContext, evidence: list[Evidence]) -> dict[str, State]:
    return {planned.requirement.check: planned.state for planned in plan_checks(context, evidence)}


def test_plan_asks_only_for_what_is_missing_or_stale() -> None:
    evidence = gathered(pilot())
    assert set(states(pilot(), []).values()) == {State.MISSING}
    assert set(states(pilot(), evidence).values()) == {State.CURRENT}
    later = states(pilot(now=NOW + timedelta(minutes=5)), evidence)
    assert later == {"schema": State.CURRENT, "space": State.STALE, "license": State.CURRENT}
    assert set(states(pilot(digest=OTHER_DIGEST), evidence).values()) == {State.STALE}


def test_plan_says_why_evidence_does_not_do() -> None:
    (_, space, _) = plan_checks(pilot(node="node-2"), gathered(pilot()))
    assert (space.state, space.reason, space.evidence) == (State.STALE, "another node", None)


def test_plan_finds_this_node_s_evidence_among_that_of_others() -> None:
    here, there = gathered(pilot()), gathered(pilot(node="node-2"))
    assert set(states(pilot(), here + there).values()) == {State.CURRENT}
    assert set(states(pilot(node="node-2"), here + there).values()) == {State.CURRENT}


def test_reused_evidence_takes_the_severity_of_its_gate() -> None:
    gates = {"pilot": {"require": ["schema", "space", "license"]}}
    stricter = pilot(spec=a_spec(gates=gates))
    (_, space, license_) = plan_checks(stricter, gathered(pilot()))
    assert space.evidence is not None
    assert space.evidence.severity is Severity.BLOCKING
    assert license_.state is State.CURRENT  # another policy is no other licence


def test_plan_says_how_long_each_check_took_last_time() -> None:
    took = [
        replace(answer, seconds=seconds) for answer, seconds in zip(gathered(pilot()), (2.5, 0.1, None), strict=True)
    ]
    assert [planned.seconds for planned in plan_checks(pilot(), took)] == [2.5, 0.1, None]
    earlier = judge(pilot(), [replace(answer, seconds=9.0) for answer in took])
    accepted = Accepted("pilot", OTHER_DIGEST, stamp(NOW), decision=earlier)
    assert [planned.seconds for planned in plan_checks(pilot(last_accepted=accepted), took)] == [2.5, 0.1, 9.0]
    assert [planned.seconds for planned in plan_checks(pilot(last_accepted=accepted), [])] == [9.0, 9.0, 9.0]
    assert [planned.seconds for planned in plan_checks(pilot(), [])] == [None, None, None]


def test_evidence_has_the_time_that_it_took() -> None:
    assert all(answer.seconds is not None and answer.seconds >= 0 for answer in gathered(pilot()))


def space_of(context: CheckContext) -> Evidence:
    return next(answer for answer in gathered(context) if answer.check == "space")


def space_planned(evidence: list[Evidence]) -> tuple[State, str]:
    planned = next(
        planned_check for planned_check in plan_checks(pilot(), evidence) if planned_check.requirement.check == "space"
    )
    return planned.state, planned.reason


def test_failure_after_an_unexpired_pass_counts() -> None:
    passed = space_of(pilot())
    for outcome, reason in (
        (Outcome.FAIL, "it failed, and may be repaired by now"),
        (Outcome.INCONCLUSIVE, "it was inconclusive"),
    ):
        after = replace(passed, outcome=outcome, at=stamp(NOW + timedelta(seconds=1)))
        assert space_planned([passed, after]) == (State.STALE, reason)
        # Two who check at once: the pass was asked for first, and recorded last.
        assert space_planned([after, passed])[0] is State.STALE
        assert space_planned([after, replace(passed, at=stamp(NOW + timedelta(seconds=2)))])[0] is State.CURRENT


def test_later_failure_outweighs_a_pass_recorded_after_it() -> None:
    passed = next(answer for answer in gathered(pilot()) if answer.check == "license")
    failed = replace(passed, outcome=Outcome.FAIL, at=stamp(NOW + timedelta(seconds=1)))
    planned = plan_checks(pilot(), [failed, passed])
    kept = next(planned_check.evidence for planned_check in planned if planned_check.requirement.check == "license")
    assert kept is not None
    assert kept.outcome is Outcome.FAIL


def test_evidence_from_a_fast_clock_holds_no_longer() -> None:
    ahead = space_of(pilot(now=NOW + timedelta(hours=2)))
    assert space_planned([ahead]) == (State.STALE, f"it is dated {ahead.at}, so a clock is wrong")
    assert space_planned([space_of(pilot(now=NOW + timedelta(seconds=30)))])[0] is State.CURRENT


def test_waived_failure_hides_no_inconclusive_answer() -> None:
    context = pilot(spec=a_spec(gates={"pilot": {"require": ["license"]}}))
    (requirement,) = context.gate.requirements
    failed = replace(run_check(CHECKS["license"], requirement, context), outcome=Outcome.FAIL)
    waiver = Waiver(
        *(
            "w",
            context.dataset,
            context.digest,
            "pilot",
            "license",
            parameters_digest(CHECKS["license"], requirement),
        ),
        reason="agreed",
        approver=Identity("ines@example.org", "declared"),
        requester=context.asker.name,
        at=stamp(NOW),
        until=stamp(NOW + timedelta(days=1)),
    )
    waived = replace(context, waivers=(waiver,))
    assert judge(waived, [failed]).accepted
    both = [failed, replace(failed, outcome=Outcome.INCONCLUSIVE)]
    assert judge(waived, both).outcome is judge(waived, both[::-1]).outcome is INCONCLUSIVE
