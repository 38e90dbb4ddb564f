"""The catalog's records of watching: rounds with their answers, and whether a target is held.

    datasets/<dataset>/watch.rounds/<target>/<n>.json     a round begins; who writes it, has the round
                       watch.answers/<target>/<n>.json    what it found, and what was done
                       watch.holds/<target>/<n>.json      the target is held, or released; see `holding`

A round whose process was killed has no answer. What moved a target, and why, stands in the target's own log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import remove_oldest
from prefect_stagegate.doors import Record
from prefect_stagegate.model import Identity, Outcome

KEPT = 500
"""Newest rounds of a target that the catalog keeps."""
REMOVED = 20
"""Older ones that one round removes, at most."""


class WatchAction(StrEnum):
    """What a round did."""

    NONE = "none"
    TOLD = "told"
    HELD = "held"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class WatchRound:
    """A round that began."""

    digest: str
    """The version that the target named."""
    move: int
    """The number of the move that made it so, in the target's log."""
    who: Identity
    node: str
    at: str


@dataclass(frozen=True, slots=True)
class WatchAnswer:
    """What a round found and did."""

    dataset: str
    target: str
    digest: str
    outcome: Outcome
    """The worst of the checks': a failure, then an inconclusive one."""
    checks: tuple[tuple[str, Outcome, str], ...]
    """Name, outcome and summary of each."""
    action: WatchAction
    why: str
    """In one line, why that was done; empty where nothing was."""
    returned_to: str
    """The version that the target names since; empty where it did not move."""
    at: str
    number: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A target is held, or released."""

    is_held: bool
    why: str
    digest: str
    """The version that the target named; empty for a release."""
    who: Identity
    at: str
    envelope: Mapping[str, Any] = field(default_factory=dict)
    """The signature, as in `Approval`; empty where nobody signed, and for what a round did."""


ROUNDS = Record("watch.rounds", WatchRound)
ANSWERS = Record("watch.answers", WatchAnswer)
HOLDS = Record("watch.holds", Hold)


def begin_round(catalog: Catalog, dataset: str, target: str, begun: WatchRound) -> int:
    """Take the next round of a target, and return its number; 0 when somebody else took it.

    Raises:
        CatalogError: The catalog can't be read or written.
    """
    numbers = catalog.numbers(ROUNDS, dataset, target)
    number = numbers[-1] + 1 if numbers else 1
    if not catalog.create(ROUNDS, begun, dataset, target, number):
        return 0
    remove_oldest(catalog, (ROUNDS, ANSWERS), dataset, target, names=[*numbers, number], keep=KEPT, most=REMOVED)
    return number
