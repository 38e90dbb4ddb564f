"""What a version still lacks that waited for an approval, or was declined: an answer, a check, or a new version."""

from __future__ import annotations

from prefect_stagegate.errors import GateFailed, StagegateError, WaitingForApproval
from prefect_stagegate.model import Decision, Evidence, Outcome
from prefect_stagegate.operations.address import Named
from prefect_stagegate.operations.gating.context import ask_about
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness import CHECKS, plan_checks, run_check
from prefect_stagegate.readiness.context import CheckContext
from prefect_stagegate.readiness.gate import State
from prefect_stagegate.spec import Gate

APPROVAL = "approval"


def why_not_promoted(workspace: Workspace, version: Named, gate: Gate, decision: Decision) -> StagegateError:
    """The error for a version whose newest decision waits for an approval, or was declined.

    Answers may have come since, so they are counted again.

    Args:
        workspace: Cache and catalog.
        version: The version.
        gate: Its target's gate.
        decision: The newest decision about it.
    """
    context = ask_about(workspace, version, gate)
    asked = next(one for one in gate.requirements if one.check == APPROVAL)
    answered = run_check(CHECKS[APPROVAL], asked, context)
    if answered.outcome is Outcome.FAIL:
        return _declined(context, answered, decision)
    if answered.outcome is Outcome.PASS:
        return _unchecked(workspace, context, answered)
    return WaitingForApproval(
        f"{context.address} waits for an approval to go to {context.target}: {answered.summary}",
        hint=f"Somebody else than {decision.requester} answers with "
        f"`stagegate approve {context.address} --to {context.target}`; then check again.",
        dataset=context.dataset,
    )


def declined_hint(address: str, target: str, requester: str) -> str:
    """Whose turn it is after a version was declined, and what they can do.

    Args:
        address: The version: `nycflights@sha256:…`.
        target: Where it may not go.
        requester: Who asked.
    """
    return (
        f"It is the turn of {requester}, who asked: stage a new version with `stagegate stage SPEC`. "
        f"If whoever declined thinks better of it: `stagegate approve {address} --to {target}`, "
        f"then `stagegate check {address} --gate {target}`."
    )


def _declined(context: CheckContext, answered: Evidence, decision: Decision) -> StagegateError:
    said = "; ".join(f"{one.subject} {one.problem}" for one in answered.findings if one.outcome is Outcome.FAIL)
    return GateFailed(
        f"{context.address} ended on its way to {context.target}: {said}",
        hint=declined_hint(context.address, context.target, decision.requester),
        dataset=context.dataset,
    )


def _unchecked(workspace: Workspace, context: CheckContext, answered: Evidence) -> StagegateError:
    """The error for a version that people agreed to, and whose gate has to be asked once more."""
    stored = workspace.catalog.evidence(context.dataset, context.digest)
    stale = [
        f"{one.requirement.check} ({one.reason})"
        for one in plan_checks(context, stored)
        if one.state is not State.CURRENT and one.requirement.check != APPROVAL
    ]
    lacks = f"no longer current: {', '.join(stale)}" if stale else "the gate was not asked since"
    return GateFailed(
        f"{context.address} is {answered.summary} for {context.target}. What is missing is a check: {lacks}",
        hint=f"Run `stagegate check {context.address} --gate {context.target}`.",
        dataset=context.dataset,
    )
