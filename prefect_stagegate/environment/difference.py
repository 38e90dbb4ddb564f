"""One difference between two environments, how much it weighs, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

UNKNOWN = "unknown"
"""In place of a fact that could not be determined."""
ABSENT = "absent"
"""In place of something that was looked for and isn't there."""


class Weight(StrEnum):
    """How much a difference matters to those who use one environment because another one passed."""

    HARMLESS = "harmless"
    """What worked there works here."""
    WARNING = "warning"
    """It seldom matters; somebody should know."""
    BLOCKING = "blocking"
    """Results from there say nothing about here."""
    UNKNOWN = "unknown"
    """One side could not be determined, so nobody can tell whether they differ."""


@dataclass(frozen=True, slots=True)
class EnvironmentDifference:
    """One fact that differs between the environment that passed (there) and the one compared with it (here)."""

    group: str
    """The field of `Environment` that it belongs to."""
    name: str
    there: str
    here: str
    weight: Weight
    why: str
    """One clause for people: why it weighs that much."""
    fix: str = ""
    """What to do here to become like there, as a command where there is one."""


def version_weight(there: str, here: str, same: int) -> Weight:
    """Weigh two versions that differ: a warning when their first `same` figures are equal, else blocking.

    >>> version_weight("2.1.0", "2.1.4", 2).value, version_weight("2.1.0", "2.2.0", 2).value
    ('warning', 'blocking')
    """
    if UNKNOWN in (there, here):
        return Weight.UNKNOWN
    return Weight.WARNING if there.split(".")[:same] == here.split(".")[:same] else Weight.BLOCKING
