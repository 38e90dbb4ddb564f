"""Tell revoked evidence from evidence that counts. Pure: no I/O and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prefect_stagegate.model import Evidence, EvidenceRevocation


def revoked(evidence: Evidence, revocations: Iterable[EvidenceRevocation]) -> EvidenceRevocation | None:
    """The revocation that ended the evidence; None while it counts.

    A revocation ends evidence that was asked for before it, also by a check that was still running. It also ends
    evidence that was on record then with a later time, from a clock that is ahead.
    """
    if not evidence.at:
        return None  # a placeholder for a check that never ran
    target = evidence.binding.get("target", "")
    return next(
        (
            revocation
            for revocation in revocations
            if revocation.check == evidence.check
            and revocation.target in ("", target)
            and (evidence.at <= revocation.at or evidence.at in revocation.ahead)
        ),
        None,
    )


def unrevoked(evidence: Iterable[Evidence], revocations: Sequence[EvidenceRevocation]) -> list[Evidence]:
    """The evidence that nobody revoked, in the same order."""
    return [answer for answer in evidence if not revoked(answer, revocations)]
