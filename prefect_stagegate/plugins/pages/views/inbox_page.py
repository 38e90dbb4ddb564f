"""The pages of all datasets: the inbox, which says whose turn it is, and the board of datasets and targets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prefect_stagegate.errors import ExitCode
from prefect_stagegate.jobs.review.inbox import InboxLine, TargetStanding
from prefect_stagegate.plugins.pages.catalog_view import CatalogEvent, CatalogView
from prefect_stagegate.plugins.pages.navigation import Slice, slice_of
from prefect_stagegate.unreadable import UnreadableRecords

LINES = 50
"""Lines of one page of the inbox."""
DATASETS = 50
"""Datasets of one page of the board."""
TARGETS = 12
"""Targets that have a column of the board; the datasets' own pages have all."""


@dataclass(frozen=True, slots=True)
class InboxPage:
    """What the inbox shows."""

    lines: tuple[InboxLine, ...]
    slice: Slice
    counts: tuple[tuple[TargetStanding, int], ...]
    """How many lines stand where, over all pages; the one that needs somebody most first."""
    person: str
    """Whom the lines are for; empty for everybody's."""
    is_everything: bool
    """Whether lines that need nobody are among them."""
    events: tuple[CatalogEvent, ...]
    """What happened last, the newest first."""
    age: float
    """Seconds since the catalog was read."""
    unread: int
    """Datasets that were not read yet."""
    unreadable: UnreadableRecords


@dataclass(frozen=True, slots=True)
class BoardPage:
    """What the board shows."""

    targets: tuple[str, ...]
    rows: tuple[tuple[str, dict[str, InboxLine]], ...]
    """Each dataset of this page, with its lines by target."""
    slice: Slice
    age: float
    """Seconds since the catalog was read."""
    unread: int
    """Datasets that were not read yet."""
    unreadable: UnreadableRecords


def inbox_page(view: CatalogView, person: str, number: str, *, everything: bool) -> InboxPage:
    """Read one page of the inbox.

    Args:
        view: The catalog.
        person: Only what waits for somebody of this name; empty for all.
        number: That of the page.
        everything: Whether to show lines that need nobody, too.
    """
    overview, age = view.overview()
    lines = [line for line in overview.lines if not person or line.concerns(person)]
    counts = Counter(line.standing for line in lines)
    shown = [line for line in lines if everything or needs_somebody(line)]
    cut = slice_of(number, LINES, len(shown))
    return InboxPage(
        tuple(shown[position] for position in cut.range),
        cut,
        tuple(sorted(counts.items(), key=lambda count: count[0].rank)),
        person,
        everything,
        () if person else overview.events,
        age,
        overview.unread,
        overview.unreadable,
    )


def board_page(view: CatalogView, number: str) -> BoardPage:
    """Read one page of the board; `number` is that of the page."""
    overview, age = view.overview()
    by_dataset: dict[str, dict[str, InboxLine]] = {name: {} for name in overview.datasets}
    for line in overview.lines:
        by_dataset.setdefault(line.dataset, {})[line.target] = line
    names = sorted(by_dataset)
    cut = slice_of(number, DATASETS, len(names))
    counts = Counter(line.target for line in overview.lines if line.target)
    # The order in which versions go through targets: a gate's own policy names the one below it first.
    targets = [target for target, _ in counts.most_common(TARGETS)]
    order = {line.target: position for position, line in reversed(list(enumerate(overview.in_order)))}
    targets.sort(key=lambda target: (order.get(target, 0), target))
    rows = tuple((names[position], by_dataset[names[position]]) for position in cut.range)
    return BoardPage(tuple(targets), rows, cut, age, overview.unread, overview.unreadable)


def needs_somebody(line: InboxLine) -> bool:
    """Whether somebody has to do something about a line."""
    return bool(line.actions) or line.standing.exit_code is not ExitCode.PASS
