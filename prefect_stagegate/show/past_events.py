"""What happened to a target before a decision: moves of its ref, and earlier decisions about the version."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_stagegate.show.legible import time_text
from prefect_stagegate.units import digest_text

MOST = 10
"""Events that a report shows, the newest first; `stagegate history` has all."""


@dataclass(frozen=True, slots=True)
class PastEvent:
    """One move of the target's ref, or one earlier decision about the version."""

    at: str
    """As ISO 8601."""
    what: str
    """`promoted`, `rolled back`, `withdrawn`, or a decision's outcome."""
    digest: str
    """The version that it is about."""
    who: str
    why: str = ""


def past_cells(event: PastEvent) -> tuple[str, ...]:
    """When, what, which version, who and why."""
    return (time_text(event.at), event.what, digest_text(event.digest), event.who, event.why)
