"""The gate: from what is known to a decision. Pure: no I/O and no clock.

What refuses, in the order in which it counts:

    a blocking check failed                                              → refused
    a blocking check is inconclusive, any check has no evidence that
    still holds, or no check of the gate applied                         → inconclusive
    only answers of people are missing                                   → waiting
    otherwise                                                            → accepted

A check of severity `warning` or `info` is reported whatever came out of it and decides nothing, but it has to be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from prefect_stagegate import clock
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Finding, Outcome, Severity, Waiver
from prefect_stagegate.readiness.base import WORST_FIRST, CheckDefinition
from prefect_stagegate.readiness.context import CheckContext
from prefect_stagegate.readiness.overrides import Case, apply_overrides, missing_passes
from prefect_stagegate.readiness.registry import CHECKS
from prefect_stagegate.readiness.run import counting, expired, superseded, why_stale
from prefect_stagegate.spec import Gate, Requirement


def decide(requirements: Sequence[Requirement], evidence: Iterable[Evidence], *, at: datetime) -> DecisionOutcome:
    """Decide by the evidence that still holds at a moment.

    Args:
        requirements: What the gate requires.
        evidence: In any order; of two answers of one check the worse counts. Its binding is the caller's concern.
        at: Evidence that expired by then counts as missing. Aware.
    """
    known = _worst(evidence, clock.stamp(at))
    answers = [(requirement.severity, known.get(requirement.check)) for requirement in requirements]
    blocking = [answer for severity, answer in answers if answer and severity is Severity.BLOCKING]
    unknown = [answer for answer in blocking if answer.outcome is Outcome.INCONCLUSIVE]
    if any(answer.outcome is Outcome.FAIL for answer in blocking):
        return DecisionOutcome.REFUSED
    if any(answer is None for _, answer in answers) or any(not answer.awaiting for answer in unknown):
        return DecisionOutcome.INCONCLUSIVE
    if all(answer.outcome is Outcome.NOT_APPLICABLE for _, answer in answers if answer):
        return DecisionOutcome.INCONCLUSIVE  # An empty gate, or one that had nothing to ask, vouches for nothing.
    return DecisionOutcome.WAITING if unknown else DecisionOutcome.ACCEPTED


def judge(context: CheckContext, evidence: Iterable[Evidence], record: Sequence[Evidence] = ()) -> Decision:
    """Make the decision about a version, with one line for each check that its gate requires.

    Args:
        context: What is judged.
        evidence: The answers to judge by.
        record: All that was ever found out about the version, the oldest first, in which passes in a row are counted.
    """
    case = Case(
        dataset=context.dataset,
        digest=context.digest,
        target=context.target,
        requester=context.asker.name,
        environment=context.environment.fingerprint,
        at=clock.stamp(context.now),
        adopted=context.adopted,
        after=context.after,
    )
    return conclude(
        case,
        context.gate,
        counting(evidence, context),
        waivers=context.waivers,
        record=counting(record, context),
    )


def conclude(
    case: Case,
    gate: Gate,
    evidence: Iterable[Evidence],
    *,
    waivers: Sequence[Waiver] = (),
    record: Sequence[Evidence] = (),
) -> Decision:
    """Make the decision of a gate about a case, from nothing but what is given."""
    required = {requirement.check: requirement for requirement in gate.requirements}
    # Each answer is ruled before the worst is taken, lest a waived failure hides one that tells nothing.
    ruled = _worst(
        (
            apply_overrides(answer, required[answer.check], case, waivers=waivers, record=record)
            for answer in evidence
            if answer.check in required
        ),
        case.at,
    )
    checks = tuple(ruled.get(requirement.check) or _missing(requirement) for requirement in gate.requirements)
    return Decision(
        dataset=case.dataset,
        digest=case.digest,
        target=case.target,
        outcome=decide(gate.requirements, ruled.values(), at=clock.moment(case.at)),
        checks=checks,
        policy=gate.policy,
        environment=case.environment,
        at=case.at,
        expires=min((answer.expires for answer in checks if answer.expires), default=""),
        requester=case.requester,
        adopted=case.adopted,
        after=case.after,
    )


class State(StrEnum):
    """What a plan says about one check."""

    CURRENT = "current"
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class PlannedCheck:
    """One check of a gate: whether it has to be asked, and why."""

    requirement: Requirement
    definition: CheckDefinition
    state: State
    reason: str
    """Why stored evidence doesn't do; empty when it does."""
    evidence: Evidence | None = None
    """What still holds, under this gate's severity."""
    seconds: float | None = None
    """How long it took last time, of this version or of one that was let in; None when nobody measured it."""
    fetches: int = 0
    """Bytes of the version that have to be brought to this node before it can be asked."""


def plan_checks(
    context: CheckContext, evidence: Iterable[Evidence], known: Mapping[str, CheckDefinition] = CHECKS
) -> tuple[PlannedCheck, ...]:
    """Find the least that must be asked: whatever changed ends only the evidence that depends on it.

    Args:
        context: What is to be judged.
        evidence: All that is stored about the version, the oldest first.
        known: The catalogue.
    """
    stored = list(evidence)
    seconds = _last_durations(context, stored)
    missing_bytes = 0 if context.view() else context.bytes
    checks = (
        _plan(requirement, known[requirement.check], context, stored) for requirement in context.gate.requirements
    )
    return tuple(
        replace(
            planned,
            seconds=seconds.get(planned.requirement.check),
            fetches=missing_bytes if planned.evidence is None and planned.definition.fetches else 0,
        )
        for planned in checks
    )


def _last_durations(context: CheckContext, stored: Iterable[Evidence]) -> dict[str, float]:
    """How long each check took when it was last asked about this version, else about one that was let in."""
    decisions = [accepted.decision for accepted in (context.accepted, context.below) if accepted and accepted.decision]
    known = [*(answer for decision in decisions for answer in decision.checks), *stored]
    return {answer.check: answer.seconds for answer in known if answer.seconds is not None}


def _plan(
    requirement: Requirement, definition: CheckDefinition, context: CheckContext, stored: Sequence[Evidence]
) -> PlannedCheck:
    reason = ""
    answers = [answer for answer in stored if answer.check == requirement.check]
    counted = counting(answers, context)
    for answer in reversed(answers):
        stale = why_stale(answer, definition, requirement, context) or superseded(answer, counted)
        if not stale and (shortage := missing_passes(answer, requirement, counted)):
            return PlannedCheck(requirement, definition, State.STALE, shortage)
        if not stale:
            kept = replace(answer, severity=requirement.severity)
            return PlannedCheck(requirement, definition, State.CURRENT, "", kept)
        reason = reason or stale
    if reason:
        return PlannedCheck(requirement, definition, State.STALE, reason)
    return PlannedCheck(requirement, definition, State.MISSING, "it was never asked")


def _worst(evidence: Iterable[Evidence], at: str) -> dict[str, Evidence]:
    """The worst answer of each check among those that still hold."""
    holding = [answer for answer in evidence if not expired(answer, at)]
    # The worst comes last, and so stays in the dictionary; an answer that nobody can give counts above one that waits.
    ranked = sorted(holding, key=lambda answer: (-WORST_FIRST.index(answer.outcome), not answer.awaiting))
    return {answer.check: answer for answer in ranked}


def _missing(requirement: Requirement) -> Evidence:
    problem = "nothing that was found out about it still holds"
    finding = Finding(requirement.check, problem, "Run `stagegate check` again.", Outcome.INCONCLUSIVE)
    owner = CHECKS[requirement.check].owner if requirement.check in CHECKS else "unknown"
    return Evidence(
        requirement.check, Outcome.INCONCLUSIVE, "no evidence", owner, requirement.severity, findings=(finding,)
    )
