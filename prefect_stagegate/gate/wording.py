"""Times and lists, written for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

SHOWN = 5
"""Names that a sentence lists before it says how many more there are."""


def time_text(at: datetime) -> str:
    """A moment in UTC, to the second. Evidence is read long after it was gathered, so it states times, not ages.

    >>> time_text(datetime(2026, 3, 1, 3, 0, tzinfo=UTC))
    '2026-03-01T03:00:00Z'
    """
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def listed(names: Sequence[str]) -> str:
    """The first few names, separated by commas, and how many more there are.

    >>> listed(["a", "b"])
    'a, b'
    """
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
