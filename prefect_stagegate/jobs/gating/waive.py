"""Waiving: a person takes responsibility for a failed check, for one version at one target, for 30 days at most."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime

from prefect_stagegate.catalog.gate_records import WAIVERS, newest_attestation, read_waivers
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import UsageError, nearest_hint
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.gate.evidence_rules import parameters_digest
from prefect_stagegate.gate.overrides import LONGEST_WAIVER, case_of, why_void
from prefect_stagegate.gate.records.answers import PersonKey, signer_of
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.jobs.gating.check import resolve_for_gate
from prefect_stagegate.model import Address, Decision, Evidence, Outcome, Revocation, Waiver
from prefect_stagegate.spec import Gate, Requirement
from prefect_stagegate.workspace import ResolvedVersion, Workspace


def waive(
    workspace: Workspace,
    address: Address,
    gate: str,
    check: str,
    *,
    reason: str,
    until: datetime,
    key: PersonKey | None = None,
) -> Waiver:
    """Waive a check's failure. The next `check` of the gate reports it as waived, until the waiver ends.

    Only a failure can be waived: an inconclusive check stays inconclusive.

    Args:
        workspace: The catalog, and who waives.
        address: The version. Without a ref: the one that the gate below accepted, else `latest`.
        gate: The target.
        check: The check's name.
        reason: Kept with the waiver.
        until: When it ends, with a time zone; `times.parse_until` parses it.
        key: Signs the waiver, where the gate wants that.

    Raises:
        UsageError: The gate doesn't require the check, the check can't be waived, it did not fail in the newest
            decision, the requester or somebody whom the policy does not name waives, there is no reason, or the end is
            past or more than 30 days away.
    """
    version, resolved_gate = resolve_for_gate(workspace, address, gate)
    requirement = _requirement(resolved_gate, check, version.dataset)
    authority = authority_of(version.spec, gate, lambda: workspace.catalog.id)
    granted_at = now()
    _require_reason_and_end(reason, until, granted_at)
    decision, failure = _failure(workspace, version, gate, check)
    waiver = Waiver(
        id=uuid.uuid4().hex[:12],
        dataset=version.dataset,
        digest=version.digest,
        target=gate,
        check=check,
        parameters=parameters_digest(CHECKS[check], requirement),
        reason=reason.strip(),
        approver=signer_of(workspace.identity, key),
        requester=decision.requester,
        at=stamp(granted_at),
        until=stamp(until),
        contract=failure.binding.get("contract", ""),
    )
    # Refuse a waiver that the gate would pass over, so that nobody relies on it.
    if why := why_void(waiver, requirement, case_of(decision, at=waiver.at)):
        raise UsageError(f"The waiver would not count: {why}", hint="Somebody else has to run the same command.")
    waiver = authority.sealed(waiver, key, "The waiver would not count", requester=waiver.requester)
    workspace.catalog.add(WAIVERS, waiver, waiver.dataset, waiver.digest, waiver.target)
    return waiver


def revoke_waiver(
    workspace: Workspace, address: Address, gate: str, check: str, *, reason: str, key: PersonKey | None = None
) -> tuple[Waiver, ...]:
    """Revoke the waivers of a check for a version. Whoever may waive may, the requester too.

    Raises:
        UsageError: No waiver is in force, there is no reason, or it would not count.
    """
    version, _ = resolve_for_gate(workspace, address, gate)
    authority = authority_of(version.spec, gate, lambda: workspace.catalog.id)
    if not reason.strip():
        raise UsageError("A revocation needs a reason", hint="Give one with --reason.")
    at = stamp(now())
    granted = authority.waivers(read_waivers(workspace.catalog, version.dataset, version.digest, gate), "")
    in_force = [waiver for waiver in granted if waiver.check == check and not waiver.revoked and waiver.until > at]
    if not in_force:
        raise UsageError(
            f"No waiver of {check} holds for {version.dataset}@{version.digest} at {gate}",
            hint=f"`stagegate show {version.dataset}@{version.digest}` lists them.",
            dataset=version.dataset,
        )
    end = Revocation(signer_of(workspace.identity, key), at, reason.strip())
    revoked = tuple(
        replace(waiver, revoked=authority.sealed(end, key, "The waiver would not end", waiver=waiver.id))
        for waiver in in_force
    )
    for waiver in revoked:
        workspace.catalog.add(WAIVERS, waiver, waiver.dataset, waiver.digest, waiver.target)
    return revoked


def _requirement(gate: Gate, check: str, dataset: str) -> Requirement:
    """What the gate requires of a check.

    Raises:
        UsageError: The gate doesn't require it, or nobody can waive it.
    """
    requirements = {requirement.check: requirement for requirement in gate.requirements}
    if check not in requirements:
        hint = nearest_hint(check, requirements)
        raise UsageError(f"The gate {gate.target} requires no check {check!r}", hint=hint, dataset=dataset)
    if not CHECKS[check].waivable:
        raise UsageError(
            f"The check {check} can't be waived",
            hint="It says which version this is, or who agreed to it. No waiver can replace that.",
            dataset=dataset,
        )
    return requirements[check]


def _require_reason_and_end(reason: str, until: datetime, at: datetime) -> None:
    if not reason.strip():
        raise UsageError("A waiver needs a reason", hint="Give one with --reason.")
    if until <= at:
        raise UsageError(f"The waiver would end at {stamp(until)}, which is in the past", hint="Give a later --until.")
    if until - at > LONGEST_WAIVER:
        raise UsageError(
            f"The waiver would last until {stamp(until)}, longer than {LONGEST_WAIVER.days} days",
            hint=f"Give --until {LONGEST_WAIVER.days}d at most, and grant another waiver then.",
        )


def _failure(workspace: Workspace, version: ResolvedVersion, gate: str, check: str) -> tuple[Decision, Evidence]:
    """The newest decision, and the evidence by which the check failed in it.

    Raises:
        UsageError: The check did not fail in it.
    """
    # A failure that is yet to come can't be waived: nobody has seen it.
    statement = newest_attestation(workspace.catalog, version.dataset, version.digest, gate)
    if statement is None:
        raise UsageError(
            f"The gate {gate} never checked {version.dataset}@{version.digest}, so there is nothing to waive",
            hint=f"Run `stagegate check {version.dataset}@{version.digest} --gate {gate}` first.",
            dataset=version.dataset,
        )
    decision = decision_of(statement)
    evidence = next((evidence for evidence in decision.checks if evidence.check == check), None)
    if evidence is None or evidence.outcome not in (Outcome.FAIL, Outcome.WAIVED):
        outcome = evidence.outcome if evidence is not None else "it was not required"
        raise UsageError(
            f"{check} did not fail in the last decision of {gate}: {outcome}",
            hint="Only a recorded failure can be waived. "
            f"`stagegate check {version.dataset}@{version.digest} --gate {gate}` checks again.",
            dataset=version.dataset,
        )
    return decision, evidence
