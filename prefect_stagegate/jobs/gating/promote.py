"""Promoting: move a target's ref to a version that its gate accepted, and to no other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prefect_stagegate.catalog import RefAction, RefEntry, withdrawn
from prefect_stagegate.catalog.gate_records import kept_evidence, newest_attestation, read_evidence
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import require_allowed
from prefect_stagegate.errors import GateFailed, GateUndecided, StagegateError, WaitingForApproval
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.approval_parameters import APPROVAL
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.evidence_rules import (
    CLOCKS_DIFFER,
    changed_bindings,
    counting,
    revoked,
    run_check,
    superseded,
)
from prefect_stagegate.gate.gate import State, plan_checks
from prefect_stagegate.gate.overrides import Case, case_of, unruled, why_void
from prefect_stagegate.gate.records.attest import decision_of, read_statement
from prefect_stagegate.gate.renewal import LETS_THROUGH
from prefect_stagegate.jobs.gating.check import build_context, resolve_for_gate
from prefect_stagegate.jobs.gating.proofs import counted_evidence
from prefect_stagegate.jobs.gating.withdraw import withdraw_failed_version
from prefect_stagegate.jobs.runner import follow, step
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Evidence, Outcome, Promotion, Severity, Waiver
from prefect_stagegate.spec import Gate, Requirement
from prefect_stagegate.workspace import ResolvedVersion, Workspace

_MAY_DIFFER = {"environment", "node", "rotten", "accepted"}
"""Bindings that may change between decision and promotion. People seldom promote on the node where the checks ran, and
a rollback in between shows that there is a version to return to."""


def promote(workspace: Workspace, address: Address, to: str, *, reinstate: bool = False) -> Promotion:
    """Move the ref `to` to a version that its gate accepted under the current policy.

    Args:
        workspace: Cache and catalog.
        address: The version. Without a ref: the one that the gate below accepted, else `latest`.
        to: The target.
        reinstate: Promote the version although a rollback or a failed re-check withdrew it.

    Raises:
        GateFailed: The gate refused the version, decided under another policy, or its acceptance no longer holds.
        GateUndecided: A check of the last decision was inconclusive.
        WaitingForApproval: Only an approval is missing.
        UnprovedEntry: The log lacks signatures that are asked for.
        RefConflict: Somebody else moved the ref meanwhile; nothing was changed.
    """
    version, gate = resolve_for_gate(workspace, address, to)
    dataset, digest = version.dataset, version.digest
    with step(workspace, "promote", dataset, target=to, subject=version) as job:
        job.note(digest=digest, target=to)
        moved = _move(workspace, version, gate, to, reinstate=reinstate)
        job.note(moved=moved.previous != digest)
        # Last, since the catalog's move stands even when this node's copy can't be written.
        follow(workspace, moved)
    return moved


def _move(workspace: Workspace, version: ResolvedVersion, gate: Gate, to: str, *, reinstate: bool) -> Promotion:
    dataset, digest = version.dataset, version.digest
    require_allowed("promote", workspace, dataset, digest, to)
    # Read the log before everything that the promotion rests on, so that a move in between makes `move_ref` fail.
    entries = workspace.catalog.history(dataset, to)
    statement = newest_attestation(workspace.catalog, dataset, digest, to)
    attested = read_statement(statement) if statement else None
    decision = _require_acceptance(workspace, version, gate, attested.decision if attested else None)
    withdrawal = withdrawn(entries).get(digest)
    if withdrawal:
        _require_reinstatement(decision, withdrawal, reinstate=reinstate)
    _require_same_facts(workspace, version, gate, decision)
    head = entries[-1] if entries else None
    # A second promotion of the same version moves nothing, unless the version was withdrawn in between, or an entry
    # that can't be proved keeps readers from it.
    if head is None or head.digest != digest or withdrawal or workspace.catalog.ref_log(dataset, to).count() > head.seq:
        workspace.catalog.move_ref(
            dataset, to, digest, head=head, action=RefAction.PROMOTE, who=workspace.identity, attestation=statement
        )
        # After the move: a check that refused the version meanwhile may not have seen it accepted yet.
        _require_no_failure_since(workspace, decision)
    return Promotion(dataset, to, digest, head.digest if head else "")


def _require_acceptance(
    workspace: Workspace, version: ResolvedVersion, gate: Gate, decision: Decision | None
) -> Decision:
    """Return the decision if it accepts this version now; else raise."""
    address = f"{version.dataset}@{version.digest}"
    command = f"`stagegate check {address} --gate {gate.target}`"
    again = f"Run {command}."
    failed = partial(GateFailed, hint=again, dataset=version.dataset)
    if decision is None:
        raise failed(f"The gate {gate.target} never checked {address}")
    if (decision.adopted, decision.policy) != (version.adopted, gate.policy):
        raise failed(f"The policy of {gate.target} changed since {address} was judged")
    if decision.outcome is DecisionOutcome.WAITING or decision.declined:
        raise why_not_promoted(workspace, version, gate, decision)
    if decision.outcome is DecisionOutcome.INCONCLUSIVE:
        raise GateUndecided(
            f"The gate {gate.target} could not decide about {address}", hint=again, dataset=version.dataset
        )
    if not decision.accepted:
        why = ", ".join(
            f"{evidence.check} ({evidence.summary})"
            for evidence in decision.checks
            if (evidence.outcome, evidence.severity) == (Outcome.FAIL, Severity.BLOCKING)
        )
        raise failed(f"The gate {gate.target} refused {address}: {why}", hint=f"{command} says what to do.")
    # A decision that a clock ahead of time dated would expire too late.
    if decision.at > stamp(now() + CLOCKS_DIFFER):
        raise failed(
            f"The acceptance of {address} is dated {decision.at}, ahead of this node's clock, {stamp(now())}",
            hint=f"Set the clock that is wrong. {again}",
        )
    if decision.expires and decision.expires <= stamp(now()):
        raise failed(f"The acceptance of {address} expired at {decision.expires}")
    return decision


def _require_reinstatement(decision: Decision, withdrawal: RefEntry, *, reinstate: bool) -> None:
    """Raise unless the gate accepted the version again after its withdrawal, and the caller asks to reinstate it."""
    version, target = f"{decision.dataset}@{decision.digest}", decision.target
    why = f"{version} was withdrawn from {target} by {withdrawal.who} at {withdrawal.at}: {withdrawal.reason}"
    hint = f"To allow it again, run `stagegate promote {version} --to {target} --reinstate`."
    if decision.after < withdrawal.seq:
        why = f"{why}; its acceptance is older than the withdrawal"
        hint = f"To allow it again, run `stagegate check {version} --gate {target}`, then promote with --reinstate."
    elif reinstate:
        return
    raise GateFailed(why, hint=hint, dataset=decision.dataset)


def _require_same_facts(workspace: Workspace, version: ResolvedVersion, gate: Gate, decision: Decision) -> None:
    """Raise when something in the catalog that a check depends on changed since the decision.

    Examples: a later answer to the request, a rollback at the gate below, another spec.
    """
    context = build_context(workspace, version, gate)
    required = {requirement.check: requirement for requirement in gate.requirements}
    case = case_of(decision, at=stamp(context.now))
    stored = counted_evidence(workspace.catalog, version)
    record = counting(stored, context)
    on_record = {(each.check, each.at) for each in stored}
    for evidence in decision.checks:
        # A later failure may be gone with it, since `check` replaces a damaged record. Old evidence is dropped, too.
        if (evidence.check, evidence.at) not in on_record and evidence in kept_evidence([evidence, *stored]):
            raise _lapsed(version, gate, f"its evidence of {evidence.check} is no longer on record")
        _require_unrevoked(version, gate, evidence, context, record)
        if evidence.ruling and evidence.ruling.waiver:
            _require_waiver(version, gate, required[evidence.check], case, context, evidence.ruling.waiver)
        changed = changed_bindings(evidence, CHECKS[evidence.check], required[evidence.check], context)
        if names := ", ".join(name for name in changed if name not in _MAY_DIFFER):
            raise _lapsed(version, gate, f"what {evidence.check} depends on changed since: {names}")


def _require_unrevoked(
    version: ResolvedVersion, gate: Gate, evidence: Evidence, context: CheckContext, record: Sequence[Evidence]
) -> None:
    """Raise when evidence that the acceptance rests on was revoked, or newer evidence contradicts it."""
    original = unruled(evidence)
    revocation = revoked(original, context.revocations)
    newer = superseded(original, record) if original.outcome in LETS_THROUGH else ""
    if revocation or newer:
        raise _lapsed(version, gate, f"its evidence of {evidence.check} no longer counts: {revocation or newer}")


def _require_no_failure_since(workspace: Workspace, decision: Decision) -> None:
    """Withdraw the version and raise when its gate refused it during the promotion.

    `check` records its decision, then looks whether the target accepted the version. `promote` moves the ref, then
    looks for a later decision. So at least one of the two sees what the other did.
    """
    newest = newest_attestation(workspace.catalog, decision.dataset, decision.digest, decision.target)
    later = decision_of(newest) if newest else decision
    if newest and later != decision and (entry := withdraw_failed_version(workspace, later, newest)):
        raise GateFailed(
            f"{decision.dataset}@{decision.digest} failed its gate while it was promoted, and was withdrawn from "
            f"{decision.target}: {entry.reason}",
            hint=f"Look with `stagegate history {decision.dataset}@{decision.target}`.",
            dataset=decision.dataset,
        )


def _require_waiver(
    version: ResolvedVersion, gate: Gate, requirement: Requirement, case: Case, context: CheckContext, waiver: Waiver
) -> None:
    """Raise when a waiver that the acceptance rests on no longer counts: it was revoked, say."""
    recorded = next((granted for granted in context.waivers if granted.id == waiver.id), None)
    gone = "the policy does not count it, or the catalog no longer has it"
    if why := why_void(recorded, requirement, case) if recorded else gone:
        raise _lapsed(version, gate, f"its waiver of {requirement.check} no longer counts: {why}")


def _lapsed(version: ResolvedVersion, gate: Gate, why: str) -> GateFailed:
    """The error for an acceptance that no longer holds."""
    name, target = f"{version.dataset}@{version.digest}", gate.target
    hint = f"Run `stagegate check {name} --gate {target}`."
    return GateFailed(f"{name} was accepted for {target}, but {why}", hint=hint, dataset=version.dataset)


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
