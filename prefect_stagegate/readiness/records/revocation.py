"""Which evidence somebody revoked, and so counts no more. Pure: no I/O and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prefect_stagegate.model import Evidence, EvidenceRevocation


def revoked(evidence: Evidence, revocations: Iterable[EvidenceRevocation]) -> EvidenceRevocation | None:
    """The revocation that ended the evidence; None while it counts.

    Ended is what was asked for up to the revocation, also by a check that was under way, and what was on record then
    under a later time, by a clock that is ahead.
    """
    if not evidence.at:
        return None  # it says only that nobody was asked
    about = evidence.binding.get("target", "")
    return next(
        (
            revocation
            for revocation in revocations
            if revocation.check == evidence.check
            and revocation.target in ("", about)
            and (evidence.at <= revocation.at or evidence.at in revocation.ahead)
        ),
        None,
    )


def unrevoked(evidence: Iterable[Evidence], revocations: Sequence[EvidenceRevocation]) -> list[Evidence]:
    """The evidence that nobody revoked, in the order in which it came."""
    return [answer for answer in evidence if not revoked(answer, revocations)]
