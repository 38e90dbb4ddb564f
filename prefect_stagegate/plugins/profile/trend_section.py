"""Trends as a dataset's page draws them, and as `stagegate trends` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from prefect_stagegate.model import Address
from prefect_stagegate.plugins.profile.trends import NO_BOUND, DatasetTrends, Trend, TrendVersion, read_trends
from prefect_stagegate.show.document import Bar, Cell, Figure, Section, Table
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.units import bytes_text, digest_text
from prefect_stagegate.workspace import Workspace

SHOWN = 12
"""Versions that a page looks back."""
MOST_TRENDS = 40
"""Figures that a page or a terminal shows."""
BLOCKS = "▁▂▃▄▅▆▇█"
GAP = "·"
"""Stands for a version that has no such figure, or no decision."""
MARKS = {"accepted": "✓", "refused": "✗", "inconclusive": "?", "waiting": "…"}
"""How a terminal writes decisions."""


def trend_section(workspace: Workspace, subject: Address) -> list[Section]:
    """The trends of a dataset, for its page; nothing below two versions."""
    trends = read_trends(workspace, subject.dataset, SHOWN)
    if len(trends.versions) < 2:  # noqa: PLR2004 - one version is no trend
        return []
    shown, more = moving(trends)
    head = ("Figure", "First", "Last", "Least to most", "The suite accepts", "By version")
    table = Table(
        head, tuple(_row(trends.versions, trend) for trend in shown), more=more, key=("each version", "bound")
    )
    return [Section("Trends", (table,), {"trends": asdict(trends)})]


def moving(trends: DatasetTrends, column: str = "") -> tuple[list[Trend], int]:
    """The figures to show, and how many more there are: those that move, or all of one column."""
    chosen = [
        trend
        for trend in trends.trends
        if (trend.column == column if column else trend.moves or (not trend.column and trend.known))
    ]
    return chosen[:MOST_TRENDS], len(chosen[MOST_TRENDS:])


def texts(trend: Trend) -> tuple[str, str, str, str]:
    """The first and the last value that is known, the least and the greatest one, and the bound."""
    known = trend.known
    if not known:
        return "", "", "", _bound(trend)
    span = f"{_value(trend, min(known))} to {_value(trend, max(known))}"
    return _value(trend, known[0]), _value(trend, known[-1]), span, _bound(trend)


def _bound(trend: Trend) -> str:
    low, high = trend.bound
    if trend.bound == NO_BOUND:
        return ""
    ends = [f"{word} {_value(trend, end)}" for word, end in (("from", low), ("to", high)) if end is not None]
    return " ".join(ends)


def _value(trend: Trend, value: float) -> str:
    if trend.figure == "bytes":
        return bytes_text(value)
    if trend.figure == "missing":
        return f"{100 * value:.3g} %"
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}"


def sparkline_text(trend: Trend) -> str:
    """The figure at each version as a block of eight heights, from its least to its greatest value.

    >>> sparkline_text(Trend("t", "", "rows", (1.0, None, 3.0, 8.0)))
    '▁·▃█'
    """
    if not trend.known:
        return GAP * len(trend.values)
    low, high = min(trend.known), max(trend.known)
    steps = len(BLOCKS) - 1
    # Divided first: a difference of large numbers may be infinite.
    heights = [
        None if value is None else (value / 2 - low / 2) / ((high / 2 - low / 2) or 1.0) for value in trend.values
    ]
    return "".join(GAP if height is None else BLOCKS[round(height * steps)] for height in heights)


def decision_text(versions: Sequence[TrendVersion], target: str) -> str:
    """The target's newest decision about each version, a character each."""
    return "".join(MARKS.get(version.decisions.get(target, ""), GAP) for version in versions)


def _row(versions: Sequence[TrendVersion], trend: Trend) -> tuple[Cell, ...]:
    return (*map(Cell, (trend.name, *texts(trend))), Cell(figure=Figure(trend.name, tuple(_bars(versions, trend)))))


def _bars(versions: Sequence[TrendVersion], trend: Trend) -> list[Bar]:
    """A bar for each version, beside the nearest of the suite's bounds: the upper one, or else the lower."""
    low, high = trend.bound
    bound = low if high is None else high
    ends = [*trend.known, 0.0, *(end for end in (bound,) if end is not None)]
    least, most = min(ends), max(ends)
    width = (most / 2 - least / 2) or 1.0
    height_of_bound = 0.0 if bound is None else (bound / 2 - least / 2) / width
    bars = []
    for version, value in zip(versions, trend.values, strict=True):
        decided = ", ".join(f"{target} {outcome}" for target, outcome in version.decisions.items()) or "not decided"
        said = "unknown" if value is None else _value(trend, value)
        height = 0.0 if value is None else (value / 2 - least / 2) / width
        label = f"{digest_text(version.digest)}, {time_text(version.at)}: {said}; {decided}"
        bars.append(Bar(height, height_of_bound, label))
    return bars
