"""The first page: whose turn it is, and the picture of the datasets that need somebody most."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from starlette.requests import Request

from prefect_stagegate.errors import ExitCode
from prefect_stagegate.jobs.review.inbox import InboxLine
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.navigation import slice_of
from prefect_stagegate.plugins.pages.views.picture import picture

LINES = 50
"""Lines of one page of the inbox."""
DRAWN = 6
"""Datasets in the picture."""


def inbox_page(view: CatalogView, request: Request) -> SimpleNamespace:
    """Read one page of the inbox: with `for`, what waits for this person; with `all`, also lines that need nobody."""
    query = request.query_params
    person, is_everything = query.get("for", "")[:254], query.get("all", "") == "1"
    overview, age = view.overview()
    lines = [line for line in overview.lines if not person or line.concerns(person)]
    counts = Counter(line.standing for line in lines)
    shown = [line for line in lines if is_everything or needs_somebody(line)]
    cut = slice_of(query.get("page", ""), LINES, len(shown))
    names = dict.fromkeys(line.dataset for line in lines if needs_somebody(line))
    if not person:
        held = [name for name, passage in overview.passages.items() if passage.held]
        names |= dict.fromkeys([*held, *overview.datasets])
    return SimpleNamespace(
        picture=picture(overview, list(names)[:DRAWN]),
        datasets=len(names),
        lines=[shown[position] for position in cut.range],
        slice=cut,
        counts=sorted(counts.items(), key=lambda count: count[0].rank),
        person=person,
        is_everything=is_everything,
        events=() if person else overview.events,
        age=age,
        unread=overview.unread,
        unreadable=overview.unreadable,
    )


def needs_somebody(line: InboxLine) -> bool:
    """Whether somebody has to do something about a line."""
    return bool(line.actions) or line.standing.exit_code is not ExitCode.PASS
