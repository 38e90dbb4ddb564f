"""Revoking: one check's evidence about one version counts no more, because somebody knows better; it is asked again."""

from __future__ import annotations

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import UsageError, did_you_mean
from prefect_stagegate.model import Address, Evidence, EvidenceRevocation
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness import CHECKS
from prefect_stagegate.readiness.records.revocation import unrevoked


def revoke(workspace: Workspace, address: Address, check: str, *, reason: str, gate: str = "") -> EvidenceRevocation:
    """End what a check found out about a version so far, and nothing else; anybody may, for it lets nothing through.

    The next `check` asks again. Until then no acceptance that rests on it can be promoted, and runs that require the
    version have no answer. An approval is taken back by `approve --decline`, a waiver by `waive --revoke`.

    Args:
        workspace: The catalog, and who revokes.
        address: The version; without a ref, `latest`.
        check: The check's name.
        reason: Kept with the revocation.
        gate: Only what was found out on the way to this target, for a check whose answer depends on the target.

    Raises:
        UsageError: There is no reason, no such evidence, or the check asks the same for all targets.
    """
    if not reason.strip():
        raise UsageError("A revocation needs a reason", hint="Give one with --reason.")
    digest = workspace.catalog.resolve(address)
    before = workspace.catalog.revocations(address.dataset, digest)
    known = unrevoked(workspace.catalog.evidence(address.dataset, digest), before)
    version = Address(address.dataset, digest)
    own = [answer for answer in known if answer.check == check]
    found = [answer for answer in own if gate == _target(answer, version, gate)] if gate else own
    if not found:
        raise _nothing(version, check, gate, known)
    at = stamp(now())
    revocation = EvidenceRevocation(
        dataset=address.dataset,
        digest=digest,
        check=check,
        target=gate,
        reason=reason.strip(),
        who=workspace.identity,
        at=at,
        ahead=tuple(sorted({answer.at for answer in found if answer.at > at})),
    )
    workspace.catalog.put_revocation(revocation)
    return revocation


def _target(answer: Evidence, version: Address, gate: str) -> str:
    if "target" not in answer.binding:
        raise UsageError(
            f"{answer.check} asks the same about {version} for all targets, not for {gate} alone",
            hint="Leave --gate out to revoke it for all of them.",
            dataset=version.dataset,
        )
    return answer.binding["target"]


def _nothing(version: Address, check: str, gate: str, known: list[Evidence]) -> UsageError:
    names = sorted({answer.check for answer in known})
    there = f" at {gate}" if gate else ""
    if check in CHECKS:
        hint = f"There is evidence of {', '.join(names)}." if names else "There is no evidence about it at all."
    else:
        hint = did_you_mean(check, CHECKS) or "`stagegate checks` lists the checks."
    return UsageError(
        f"There is no evidence of {check} about {version}{there} that still counts",
        hint=hint[0].upper() + hint[1:],
        dataset=version.dataset,
    )
