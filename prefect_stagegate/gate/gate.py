"""The gate: makes a decision from evidence. `decide` and `conclude` are pure: no I/O and no clock.

The first line that applies decides:

    a blocking check failed                                              → refused
    a blocking check is inconclusive, any check has no evidence that
    still holds, or no check of the gate applied                         → inconclusive
    only answers of people are missing                                   → waiting
    otherwise                                                            → accepted

A check of severity `warning` or `info` is reported, but its outcome decides nothing. It needs current evidence all the
same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from prefect_stagegate import clock
from prefect_stagegate.gate.accepted import accepted_below, last_accepted
from prefect_stagegate.gate.base import WORST_FIRST
from prefect_stagegate.gate.check_context import CheckContext, local_view
from prefect_stagegate.gate.evidence_rules import counting, expired, superseded, why_stale
from prefect_stagegate.gate.overrides import Case, apply_overrides, missing_passes, require_seen_waivers
from prefect_stagegate.gate.registry import CHECKS, Check
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Finding, Outcome, Severity, Waiver
from prefect_stagegate.spec import Gate, Requirement


def decide(requirements: Sequence[Requirement], evidence: Iterable[Evidence], *, at: datetime) -> DecisionOutcome:
    """Decide by the evidence that still holds at a moment.

    Args:
        requirements: What the gate requires.
        evidence: In any order; of two answers of one check the worse counts. The caller has checked its binding.
        at: The moment, aware. Evidence that has expired by then counts as missing.
    """
    known = _worst(evidence, clock.stamp(at))
    answers = [(requirement.severity, known.get(requirement.check)) for requirement in requirements]
    blocking = [answer for severity, answer in answers if answer is not None and severity is Severity.BLOCKING]
    unknown = [answer for answer in blocking if answer.outcome is Outcome.INCONCLUSIVE]
    # A failure decides first: no answer that is still missing could turn the refusal into an acceptance.
    if any(answer.outcome is Outcome.FAIL for answer in blocking):
        return DecisionOutcome.REFUSED
    # Checks that only warn need an answer, too: otherwise a gate would pass what nobody looked at.
    if any(answer is None for _, answer in answers) or any(not answer.awaiting for answer in unknown):
        return DecisionOutcome.INCONCLUSIVE
    if all(answer.outcome is Outcome.NOT_APPLICABLE for _, answer in answers if answer is not None):
        return DecisionOutcome.INCONCLUSIVE  # no check applied, so nothing was proved
    return DecisionOutcome.WAITING if unknown else DecisionOutcome.ACCEPTED


def judge(context: CheckContext, evidence: Iterable[Evidence], record: Sequence[Evidence] = ()) -> Decision:
    """Make the decision about a version, with one line for each check that its gate requires.

    `record` is all recorded evidence about the version, the oldest first; passes in a row are counted in it.
    """
    case = Case(
        dataset=context.dataset,
        digest=context.digest,
        target=context.target,
        # Not whoever runs the checks: a waiver of the one who wants the promotion must stay void.
        requester=context.asker.name,
        environment=context.environment.fingerprint,
        at=clock.stamp(context.now),
        adopted=context.version.adopted,
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
    """Make the decision of a gate about a case. Everything that it depends on is an argument."""
    required = {requirement.check: requirement for requirement in gate.requirements}
    # Overrides come before the choice of the worst: else a waived failure would hide an inconclusive answer.
    ruled = _worst(
        (
            apply_overrides(answer, required[answer.check], case, waivers=waivers, record=record)
            for answer in evidence
            if answer.check in required
        ),
        case.at,
    )
    if (approval := ruled.get("approval")) is not None:
        ruled["approval"] = require_seen_waivers(approval, ruled.values())
    answers = {requirement.check: _missing(requirement) for requirement in gate.requirements} | ruled
    checks = tuple(answers[requirement.check] for requirement in gate.requirements)
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
    """One check of a gate: whether it has to run, and why."""

    requirement: Requirement
    definition: Check
    state: State
    reason: str
    """Why stored evidence is not enough; empty when it is."""
    evidence: Evidence | None = None
    """The stored evidence that still holds, with this gate's severity."""
    seconds: float | None = None
    """How long it took last time, for this version or an accepted one; None when unknown."""
    fetches: int = 0
    """Bytes of the version that must be staged on this node before the check can run."""


def plan_checks(context: CheckContext, evidence: Iterable[Evidence]) -> tuple[PlannedCheck, ...]:
    """Plan which checks of the gate must run: those without stored evidence that still holds.

    `evidence` is all that is stored about the version, the oldest first.
    """
    stored = list(evidence)
    seconds = _last_durations(context, stored)
    missing_bytes = 0 if local_view(context) else context.bytes
    checks = (_plan(requirement, context, stored) for requirement in context.gate.requirements)
    return tuple(
        replace(
            planned,
            seconds=seconds.get(planned.requirement.check),
            fetches=missing_bytes if planned.evidence is None and planned.definition.fetches else 0,
        )
        for planned in checks
    )


def _last_durations(context: CheckContext, stored: Iterable[Evidence]) -> dict[str, float]:
    """Seconds that each check took last time: for this version, else for an accepted one."""
    decisions = [
        each.decision
        for each in (last_accepted(context), accepted_below(context))
        if each and each.decision is not None
    ]
    # Later entries replace earlier ones: this version's own evidence comes last.
    known = [*(answer for decision in decisions for answer in decision.checks), *stored]
    return {answer.check: answer.seconds for answer in known if answer.seconds is not None}


def _plan(requirement: Requirement, context: CheckContext, stored: Sequence[Evidence]) -> PlannedCheck:
    definition, reason = CHECKS[requirement.check], ""
    answers = [answer for answer in stored if answer.check == requirement.check]
    counted = counting(answers, context)
    # Newest first. An older answer may still hold where the newest one was revoked or came from another node.
    for answer in reversed(answers):
        if stale := why_stale(answer, definition, requirement, context) or superseded(answer, counted):
            reason = reason or stale  # people are told why the newest answer does not hold
        elif shortage := missing_passes(answer, requirement, counted):
            return PlannedCheck(requirement, definition, State.STALE, shortage)
        else:
            current = replace(answer, severity=requirement.severity)
            return PlannedCheck(requirement, definition, State.CURRENT, "", current)
    if reason:
        return PlannedCheck(requirement, definition, State.STALE, reason)
    return PlannedCheck(requirement, definition, State.MISSING, "it never ran")


def _worst(evidence: Iterable[Evidence], at: str) -> dict[str, Evidence]:
    """The worst answer of each check among those that still hold."""
    holding = [answer for answer in evidence if not expired(answer, at)]
    # The last answer of a check stays in the dictionary. An inconclusive one that waits for nobody is the worse one.
    ranked = sorted(holding, key=lambda answer: (-WORST_FIRST.index(answer.outcome), not answer.awaiting))
    return {answer.check: answer for answer in ranked}


def _missing(requirement: Requirement) -> Evidence:
    problem = "no evidence of this check still holds"
    finding = Finding(requirement.check, problem, "Run `stagegate check` again.", Outcome.INCONCLUSIVE)
    owner = CHECKS[requirement.check].owner if requirement.check in CHECKS else "unknown"
    return Evidence(
        requirement.check, Outcome.INCONCLUSIVE, "no evidence", owner, requirement.severity, findings=(finding,)
    )
