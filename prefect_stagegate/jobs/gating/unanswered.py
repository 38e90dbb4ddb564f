"""What a version lacks that waits for an approval, or was declined: an answer, a check, or a new version."""

from __future__ import annotations

from prefect_stagegate.catalog.gate_records import read_evidence
from prefect_stagegate.errors import GateFailed, StagegateError, WaitingForApproval
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.approval_parameters import APPROVAL
from prefect_stagegate.gate.context import CheckContext
from prefect_stagegate.gate.gate import State, plan_checks
from prefect_stagegate.gate.run import run_check
from prefect_stagegate.jobs.gating.context import build_context
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Decision, Evidence, Outcome
from prefect_stagegate.spec import Gate
from prefect_stagegate.workspace import ResolvedVersion


def why_not_promoted(workspace: Workspace, version: ResolvedVersion, gate: Gate, decision: Decision) -> StagegateError:
    """The error for a version whose newest decision waits for an approval, or was declined.

    People may have answered since that decision, so their answers are counted again.
    """
    context = build_context(workspace, version, gate)
    requirement = next(requirement for requirement in gate.requirements if requirement.check == APPROVAL)
    approval = run_check(CHECKS[APPROVAL], requirement, context)
    if approval.outcome is Outcome.FAIL:
        return _declined(context, approval, decision)
    if approval.outcome is Outcome.PASS:
        return _unchecked(workspace, context, approval)
    return WaitingForApproval(
        f"{context.address} waits for an approval to go to {context.target}: {approval.summary}",
        hint=f"Somebody else than {decision.requester} answers with "
        f"`stagegate approve {context.address} --to {context.target}`; then check again.",
        dataset=context.dataset,
    )


def declined_hint(address: str, target: str, requester: str) -> str:
    """Whose turn it is after a version was declined, and what they can do."""
    return (
        f"It is the turn of {requester}, who asked: stage a new version with `stagegate stage SPEC`. "
        f"Whoever declined may still approve it: `stagegate approve {address} --to {target}`, "
        f"then `stagegate check {address} --gate {target}`."
    )


def _declined(context: CheckContext, approval: Evidence, decision: Decision) -> StagegateError:
    failures = [finding for finding in approval.findings if finding.outcome is Outcome.FAIL]
    reasons = "; ".join(f"{finding.subject} {finding.problem}" for finding in failures)
    return GateFailed(
        f"{context.address} can't go to {context.target}: {reasons}",
        hint=declined_hint(context.address, context.target, decision.requester),
        dataset=context.dataset,
    )


def _unchecked(workspace: Workspace, context: CheckContext, approval: Evidence) -> StagegateError:
    """The error for a version that people approved, and that has to be checked once more."""
    stored = read_evidence(workspace.catalog, context.dataset, context.digest)
    stale = [
        f"{planned.requirement.check} ({planned.reason})"
        for planned in plan_checks(context, stored)
        if planned.state is not State.CURRENT and planned.requirement.check != APPROVAL
    ]
    lacks = f"no longer current: {', '.join(stale)}" if stale else "the gate has not decided since"
    return GateFailed(
        f"{context.address} is {approval.summary} for {context.target}, and has to be checked again: {lacks}",
        hint=f"Run `stagegate check {context.address} --gate {context.target}`.",
        dataset=context.dataset,
    )
