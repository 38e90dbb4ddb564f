"""How figures are written for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

SHOWN = 5
"""Names that a sentence lists before it says how many more there are."""


def age_text(age: timedelta) -> str:
    """A length of time, in the largest unit that leaves a figure of two digits or more.

    >>> age_text(timedelta(seconds=40)), age_text(timedelta(hours=30)), age_text(timedelta(days=9))
    ('40 s', '30 h', '9 d')
    """
    seconds = max(age.total_seconds(), 0)
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < length * limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of them.

    >>> listed(["a", "b"])
    'a, b'
    """
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
