"""Renewing: decide again about an accepted version, by the policy of its acceptance, when a run starts on it.

Evidence that still holds is used as it is. For a check without such evidence, its `Renewal` says what happens: a cheap
one runs again, a costly one stays unanswered, and a settled one keeps the answer of the acceptance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.evidence_rules import run_check, unrevoked
from prefect_stagegate.gate.gate import PlannedCheck, judge, plan_checks
from prefect_stagegate.gate.overrides import unruled
from prefect_stagegate.gate.registry import Renewal
from prefect_stagegate.model import Decision, Evidence, Finding, Outcome, Scope, Severity

LETS_THROUGH = (Outcome.PASS, Outcome.WARN, Outcome.WAIVED, Outcome.NOT_APPLICABLE)


@dataclass(frozen=True, slots=True)
class Renewed:
    """The decision about a version at the start of a run."""

    decision: Decision
    rerun: tuple[str, ...]
    """The checks that ran again."""

    @property
    def against_version(self) -> tuple[str, ...]:
        """The blocking checks that forbid the version in this environment, on any node."""
        return tuple(answer.check for answer in _blocking(self.decision) if answer.scope is not Scope.NODE)

    @property
    def against_node(self) -> tuple[str, ...]:
        """The blocking checks that forbid it on this node only; they say nothing about the version."""
        return tuple(answer.check for answer in _blocking(self.decision) if answer.scope is Scope.NODE)


def renew(context: CheckContext, stored: Iterable[Evidence], accepted: Decision) -> Renewed:
    """Decide by the stored evidence that still holds and by running the cheap checks again. Records nothing.

    The policy of `context` is the one under which the version was accepted. `stored` is all evidence about the version,
    the oldest first.
    """
    # The acceptance stays on record unchanged, so answers that were revoked since must be left out here.
    accepted_answers = unrevoked(accepted.checks, context.revocations)
    settled = {answer.check: answer for answer in accepted_answers if answer.outcome in LETS_THROUGH}
    record = list(stored)
    answers, rerun = [], []
    for planned in plan_checks(context, record):
        answer = _known(planned, context, settled)
        if answer is None:
            answer = run_check(planned.definition, planned.requirement, context)
            rerun.append(answer.check)
            record.append(answer)  # passes in a row are counted with it
        answers.append(answer)
    return Renewed(judge(context, answers, record), tuple(rerun))


def _known(planned: PlannedCheck, context: CheckContext, settled: dict[str, Evidence]) -> Evidence | None:
    """The answer to a check without running it; None when it must run."""
    check, renewal = planned.requirement.check, planned.definition.renewal
    if renewal is Renewal.SETTLED and check in settled:
        return replace(unruled(settled[check]), expires="")  # the decision is people's, and has no end
    if planned.evidence is None and renewal is not Renewal.CHEAP:
        return _unanswered(planned, context)
    return planned.evidence


def _unanswered(planned: PlannedCheck, context: CheckContext) -> Evidence:
    fix = f"stagegate check {context.address} --gate {context.target}"
    finding = Finding(planned.requirement.check, "a run does not start this check", fix, Outcome.INCONCLUSIVE)
    return Evidence(
        planned.requirement.check,
        Outcome.INCONCLUSIVE,
        f"no current evidence: {planned.reason}",
        planned.definition.owner,
        planned.requirement.severity,
        planned.definition.scope,
        (finding,),
    )


def _blocking(decision: Decision) -> Iterable[Evidence]:
    return (
        answer
        for answer in decision.checks
        if answer.severity is Severity.BLOCKING and answer.outcome not in LETS_THROUGH
    )
