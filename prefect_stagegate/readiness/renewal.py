"""Renewing: how a version that a gate accepted stands when a run starts on it, by today's policy.

What still holds is used as it is. Of the rest, what is cheap is asked again, here and now; what is costly stays
unanswered; what people settled stays as it was when the version was accepted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prefect_stagegate.model import Decision, Evidence, Finding, Outcome, Scope, Severity
from prefect_stagegate.readiness.base import Renewal
from prefect_stagegate.readiness.context import CheckContext
from prefect_stagegate.readiness.gate import PlannedCheck, judge, plan_checks
from prefect_stagegate.readiness.overrides import unruled
from prefect_stagegate.readiness.records.revocation import standing
from prefect_stagegate.readiness.run import run_check

LETS_THROUGH = (Outcome.PASS, Outcome.WARN, Outcome.WAIVED, Outcome.NOT_APPLICABLE)


@dataclass(frozen=True, slots=True)
class Renewed:
    """A version's standing at the start of a run."""

    decision: Decision
    asked: tuple[str, ...]
    """The checks that were asked again."""

    @property
    def against_version(self) -> tuple[str, ...]:
        """The checks that keep the version from being used in this environment, on whichever node."""
        return tuple(answer.check for answer in _blocking(self.decision) if answer.scope is not Scope.NODE)

    @property
    def against_node(self) -> tuple[str, ...]:
        """The checks that keep this node from running on it; they say nothing against the version."""
        return tuple(answer.check for answer in _blocking(self.decision) if answer.scope is Scope.NODE)


def renew(context: CheckContext, stored: Iterable[Evidence], accepted: Decision) -> Renewed:
    """Find out by what still holds and by what is cheap to ask. Records nothing.

    Args:
        context: The version, under the policy that is stored beside it, on this node.
        stored: All that is stored about the version, the oldest first.
        accepted: The decision that let it in.
    """
    then = standing(accepted.checks, context.revocations)
    settled = {answer.check: answer for answer in then if answer.outcome in LETS_THROUGH}
    record = list(stored)
    answers, asked = [], []
    for one in plan_checks(context, record):
        answer = _known(one, context, settled)
        if answer is None:
            answer = run_check(one.definition, one.requirement, context)
            asked.append(answer.check)
            record.append(answer)
        answers.append(answer)
    return Renewed(judge(context, answers, record), tuple(asked))


def _known(one: PlannedCheck, context: CheckContext, settled: dict[str, Evidence]) -> Evidence | None:
    """The answer to a check without asking it; None when it is to be asked."""
    check, renewal = one.requirement.check, one.definition.renewal
    if renewal is Renewal.SETTLED and check in settled:
        return replace(unruled(settled[check]), expires="")
    if one.evidence is None and renewal is not Renewal.CHEAP:
        return _unanswered(one, context)
    return one.evidence


def _unanswered(one: PlannedCheck, context: CheckContext) -> Evidence:
    fix = f"stagegate check {context.address} --gate {context.target}"
    found = Finding(one.requirement.check, "a run does not ask it", fix, Outcome.INCONCLUSIVE)
    return Evidence(
        one.requirement.check,
        Outcome.INCONCLUSIVE,
        f"no answer that holds: {one.reason}",
        one.definition.owner,
        one.requirement.severity,
        one.definition.scope,
        (found,),
    )


def _blocking(decision: Decision) -> Iterable[Evidence]:
    return (
        answer
        for answer in decision.checks
        if answer.severity is Severity.BLOCKING and answer.outcome not in LETS_THROUGH
    )
