"""Revoking: end the evidence of one check about one version, so that the check runs again."""

from __future__ import annotations

from prefect_stagegate.catalog.gate_records import REVOCATIONS, read_evidence
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import UsageError, nearest_hint
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.gate.evidence_rules import unrevoked
from prefect_stagegate.gate.records.answers import PersonKey, signer_of
from prefect_stagegate.jobs.gating.policy import adopted_spec
from prefect_stagegate.model import Address, Evidence, EvidenceRevocation
from prefect_stagegate.workspace import Workspace


def revoke(
    workspace: Workspace, address: Address, check: str, *, reason: str, gate: str = "", key: PersonKey | None = None
) -> EvidenceRevocation:
    """Revoke the recorded evidence of a check about a version. It counts at the gates whose policy lets this person.

    The next `check` runs the check again. Until then no acceptance that rests on the evidence can be promoted, and the
    evidence makes no run ready. `approve --decline` takes back an approval, and `waive --revoke` a waiver.

    Args:
        workspace: The catalog, and who revokes.
        address: The version; without a ref, `latest`.
        check: The check's name.
        reason: Kept with the revocation.
        gate: Revoke only the evidence for this target; for checks whose result depends on the target.
        key: Signs the revocation, where a gate wants that.

    Raises:
        UsageError: There is no reason, no such evidence, the check's result does not depend on the target, or the
            revocation would not count at the first gate that requires the check.
    """
    if not reason.strip():
        raise UsageError("A revocation needs a reason", hint="Give one with --reason.")
    digest = workspace.catalog.resolve(address)
    spec = adopted_spec(workspace, address.dataset)
    requiring = (name for name in spec.gates if check in {each.check for each in spec.gate(name).requirements})
    authority = authority_of(spec, gate or next(requiring, ""), lambda: workspace.catalog.id)
    before = authority.revocations(workspace.catalog.all(REVOCATIONS, address.dataset, digest))
    # Evidence that is revoked already does not count, so a second revocation would end nothing.
    counted = unrevoked(read_evidence(workspace.catalog, address.dataset, digest), before)
    version = Address(address.dataset, digest)
    revoked = [evidence for evidence in counted if evidence.check == check]
    if gate:
        revoked = [evidence for evidence in revoked if gate == _target(evidence, version, gate)]
    if not revoked:
        raise _no_evidence(version, check, gate, counted)
    at = stamp(now())
    revocation = EvidenceRevocation(
        dataset=address.dataset,
        digest=digest,
        check=check,
        target=gate,
        reason=reason.strip(),
        who=signer_of(workspace.identity, key),
        at=at,
        # Evidence of a node whose clock is ahead is revoked by name: it seems later than the revocation.
        ahead=tuple(sorted({evidence.at for evidence in revoked if evidence.at > at})),
    )
    revocation = authority.sealed(revocation, key, "The revocation would not count")
    workspace.catalog.add(REVOCATIONS, revocation, revocation.dataset, revocation.digest)
    return revocation


def _target(evidence: Evidence, version: Address, gate: str) -> str:
    if "target" not in evidence.binding:
        raise UsageError(
            f"The result of {evidence.check} about {version} holds for all targets, not for {gate} alone",
            hint="Leave --gate out to revoke it for all of them.",
            dataset=version.dataset,
        )
    return evidence.binding["target"]


def _no_evidence(version: Address, check: str, gate: str, unrevoked: list[Evidence]) -> UsageError:
    names = sorted({evidence.check for evidence in unrevoked})
    there = f" at {gate}" if gate else ""
    if check in CHECKS:
        hint = f"There is evidence of {', '.join(names)}." if names else "There is no evidence about it at all."
    else:
        hint = nearest_hint(check, CHECKS)
    return UsageError(
        f"There is no evidence of {check} about {version}{there} that still counts",
        hint=hint,
        dataset=version.dataset,
    )
