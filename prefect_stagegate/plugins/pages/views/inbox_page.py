"""The first page: whose turn it is, and the picture of the datasets that need somebody most."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prefect_stagegate.errors import ExitCode
from prefect_stagegate.jobs.review.inbox import InboxLine, TargetStanding
from prefect_stagegate.plugins.pages.catalog_view import CatalogEvent, CatalogView
from prefect_stagegate.plugins.pages.navigation import Slice, slice_of
from prefect_stagegate.plugins.pages.views.picture import Picture, picture
from prefect_stagegate.unreadable import UnreadableRecords

LINES = 50
"""Lines of one page of the inbox."""
DRAWN = 6
"""Datasets in the picture."""


@dataclass(frozen=True, slots=True)
class InboxPage:
    """What the inbox shows."""

    picture: Picture
    """Of the datasets whose lines come first."""
    datasets: int
    """How many there are."""
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
    names = dict.fromkeys(line.dataset for line in lines if needs_somebody(line))
    if not person:
        held = [name for name, passage in overview.passages.items() if passage.held]
        names |= dict.fromkeys([*held, *overview.datasets])
    return InboxPage(
        picture(overview, list(names)[:DRAWN]),
        len(names),
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


def needs_somebody(line: InboxLine) -> bool:
    """Whether somebody has to do something about a line."""
    return bool(line.actions) or line.standing.exit_code is not ExitCode.PASS
