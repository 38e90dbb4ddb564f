"""Promoting: move a target's ref to a version that its gate accepted, and to no other."""

from __future__ import annotations

from collections.abc import Sequence

from prefect_stagegate.catalog import RefAction, RefEntry, withdrawn
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import GateFailed, GateUndecided
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Evidence, Promotion, Waiver
from prefect_stagegate.operations.address import Named
from prefect_stagegate.operations.gating.check import for_gate
from prefect_stagegate.operations.gating.context import ask_about
from prefect_stagegate.operations.gating.unanswered import why_not_promoted
from prefect_stagegate.operations.gating.withdraw import withdraw_what_failed
from prefect_stagegate.operations.upkeep.node_refs import follow
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness import CHECKS, CheckContext
from prefect_stagegate.readiness.overrides import Case, case_of, unruled, why_void
from prefect_stagegate.readiness.records.attest import decision_of
from prefect_stagegate.readiness.records.revocation import revoked
from prefect_stagegate.readiness.renewal import LETS_THROUGH
from prefect_stagegate.readiness.run import CLOCKS_DIFFER, binding, counting, superseded
from prefect_stagegate.spec import Gate, Requirement

_MAY_DIFFER = {"environment", "node", "rotten", "accepted"}
"""Bindings that don't matter between decision and promotion: those who promote seldom sit where the checks ran, and
a rollback meanwhile found its way back."""


def promote(workspace: Workspace, address: Address, to: str, *, reinstate: bool = False) -> Promotion:
    """Move the ref `to`, when its gate accepted exactly this version under the policy that is current now.

    Args:
        workspace: Cache and catalog.
        address: The version. Without a ref: the one that the gate below accepted, else `latest`.
        to: The target.
        reinstate: Let a version in again that was withdrawn, by a rollback or a failed re-check.

    Raises:
        GateFailed: The gate refused the version, judged another policy, or its acceptance holds no more.
        WaitingForApproval: Only an approval is missing.
        RefConflict: Somebody else moved the ref meanwhile; nothing was changed.
    """
    version, policy = for_gate(workspace, address, to)
    dataset, digest = version.dataset, version.digest
    entries = workspace.catalog.history(dataset, to)  # before the facts, so that a move after them is a conflict
    statement = workspace.catalog.attestation(dataset, digest, to)
    decision = _require_acceptance(workspace, version, policy, decision_of(statement) if statement else None)
    taken = withdrawn(entries).get(digest)
    if taken:
        _require_reinstatement(decision, taken, reinstate=reinstate)
    _require_same_facts(workspace, version, policy, decision)
    head = entries[-1] if entries else None
    if head is None or head.digest != digest or taken:
        workspace.catalog.move_ref(
            dataset, to, digest, head=head, action=RefAction.PROMOTE, who=workspace.identity, attestation=statement
        )
        _require_no_failure_since(workspace, decision)
    moved = Promotion(dataset, to, digest, head.digest if head else "")
    follow(workspace, moved)
    return moved


def _require_acceptance(workspace: Workspace, version: Named, policy: Gate, decision: Decision | None) -> Decision:
    """Give the decision when it lets this version through now, else raise."""
    dataset, digest = version.dataset, version.digest
    again = f"Run `stagegate check {dataset}@{digest} --gate {policy.target}`."
    if decision is None:
        raise GateFailed(f"The gate {policy.target} was never asked about {dataset}@{digest}", hint=again)
    if (decision.adopted, decision.policy) != (version.adopted, policy.policy):
        raise GateFailed(f"The policy of {policy.target} changed since {dataset}@{digest} was accepted", hint=again)
    if decision.outcome is DecisionOutcome.WAITING or decision.declined:
        raise why_not_promoted(workspace, version, policy, decision)
    if decision.outcome is DecisionOutcome.INCONCLUSIVE:
        raise GateUndecided(f"The gate {policy.target} could not decide about {dataset}@{digest}", hint=again)
    if not decision.accepted:
        failed = ", ".join(one.check for one in decision.checks if one.outcome == "fail")
        raise GateFailed(f"The gate {policy.target} refused {dataset}@{digest}: {failed}", hint=again)
    if decision.at > stamp(now() + CLOCKS_DIFFER):
        raise GateFailed(
            f"The acceptance of {dataset}@{digest} is dated {decision.at}, ahead of this node's clock, {stamp(now())}",
            hint=f"Set the clock that is wrong. {again}",
        )
    if decision.expires and decision.expires <= stamp(now()):
        raise GateFailed(f"The acceptance of {dataset}@{digest} expired at {decision.expires}", hint=again)
    return decision


def _require_reinstatement(decision: Decision, taken: RefEntry, *, reinstate: bool) -> None:
    """Raise unless a withdrawn version was accepted again since, and the caller wants it back."""
    version, target = f"{decision.dataset}@{decision.digest}", decision.target
    why = f"{version} was withdrawn from {target} by {taken.who} at {taken.at}: {taken.reason}"
    if decision.after < taken.seq:
        raise GateFailed(
            f"{why}; its acceptance is older than that",
            hint=f"If it may come back: `stagegate check {version} --gate {target}`, then promote with --reinstate.",
            dataset=decision.dataset,
        )
    if not reinstate:
        raise GateFailed(
            why,
            hint=f"If it may come back: `stagegate promote {version} --to {target} --reinstate`.",
            dataset=decision.dataset,
        )


def _require_same_facts(workspace: Workspace, version: Named, policy: Gate, decision: Decision) -> None:
    """Raise when something that the catalog holds, and that a check depended on, is another one by now.

    A later answer to the request, for example, a rollback at the gate below, or another spec.
    """
    context = ask_about(workspace, version, policy)
    required = {asked.check: asked for asked in policy.requirements}
    case = case_of(decision, at=stamp(context.now))
    record = counting(workspace.catalog.evidence(version.dataset, version.digest), context)
    for answer in decision.checks:
        _require_standing(version, policy, answer, context, record)
        if answer.ruling and answer.ruling.waiver:
            _require_waiver(version, required[answer.check], case, context, answer.ruling.waiver)
        current = binding(CHECKS[answer.check], required[answer.check], context)
        changed = {name for name in current if current[name] != answer.binding.get(name)} - _MAY_DIFFER
        if changed:
            raise GateFailed(
                f"{version.dataset}@{version.digest} was accepted for {policy.target}, and what {answer.check} depends "
                f"on changed since: {', '.join(sorted(changed))}",
                hint=f"Run `stagegate check {version.dataset}@{version.digest} --gate {policy.target}`.",
                dataset=version.dataset,
            )


def _require_standing(
    version: Named, policy: Gate, answer: Evidence, context: CheckContext, record: Sequence[Evidence]
) -> None:
    """Raise when an answer that the acceptance rests on was revoked, or the same question answered otherwise since."""
    found = unruled(answer)
    ended = revoked(found, context.revocations)
    since = superseded(found, record) if found.outcome in LETS_THROUGH else ""
    if ended or since:
        raise GateFailed(
            f"{version.dataset}@{version.digest} was accepted for {policy.target} by evidence of {answer.check} that "
            f"counts no more: {ended or since}",
            hint=f"Run `stagegate check {version.dataset}@{version.digest} --gate {policy.target}`.",
            dataset=version.dataset,
        )


def _require_no_failure_since(workspace: Workspace, decision: Decision) -> None:
    """Take a version back whose gate refused it while it was promoted, and raise.

    Whoever checks writes the decision and then looks whether the ref has the version; whoever promotes moves the ref
    and then looks for a later decision. So one of the two sees what the other did.
    """
    newest = workspace.catalog.attestation(decision.dataset, decision.digest, decision.target)
    later = decision_of(newest) if newest else decision
    if newest and later != decision and (entry := withdraw_what_failed(workspace, later, newest)):
        raise GateFailed(
            f"{decision.dataset}@{decision.digest} failed its gate while it was promoted, and was withdrawn from "
            f"{decision.target}: {entry.reason}",
            hint=f"Look with `stagegate history {decision.dataset}@{decision.target}`.",
            dataset=decision.dataset,
        )


def _require_waiver(version: Named, asked: Requirement, case: Case, context: CheckContext, waiver: Waiver) -> None:
    """Raise when a waiver that the acceptance rests on counts no more: revoked, say."""
    now_recorded = next((one for one in context.waivers if one.id == waiver.id), None)
    why = why_void(now_recorded, asked, case) if now_recorded else "the catalog has lost it"
    if why:
        raise GateFailed(
            f"{version.dataset}@{version.digest} was accepted by a waiver of {asked.check} that counts no more: {why}",
            hint=f"Run `stagegate check {version.dataset}@{version.digest} --gate {case.target}`.",
            dataset=version.dataset,
        )
