"""Profiles of tables as a report shows them: a line for each column, with a small picture of its values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefect_stagegate.plugins.profile.profiles import ColumnProfile, TableProfile
from prefect_stagegate.units import count_text

MOST_COLUMNS = 50
"""Columns of a table that are shown; the others are counted."""
BINS = 24
"""Bars of a histogram. It leaves out the outermost quarter of a percent on both sides, where outliers are."""
MOST_BARS = 12
"""Values of a column of categories that have a bar: the most frequent."""
WIDTH, HEIGHT = 168, 36
"""The size of a picture, in its own units."""
SHOWN = 40
"""Characters of a value that are shown."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bar:
    """The share of values in one bin, or of one value, in both versions."""

    share: float
    """Of this version's values, from 0.0 to 1.0."""
    share_before: float
    label: str
    """The bin or value with its shares, for people."""


@dataclass(frozen=True, slots=True)
class ColumnFigures:
    """One column of a table. `before` stands for the version that the target names."""

    name: str
    type: str
    missing: str
    missing_before: str
    distinct: str
    distinct_before: str
    span: str
    """Extremes and mean; empty for text."""
    span_before: str
    bars: tuple[Bar, ...]
    note: str = ""
    """Why there are no figures."""
    is_histogram: bool = False
    """Whether the bars are neighbouring intervals, and not single values."""

    @property
    def step(self) -> float:
        """Units of the picture from one bar to the next."""
        return min(WIDTH / max(len(self.bars), 1), 22)

    @property
    def scale(self) -> float:
        """Units of the picture for a share of 1.0: the highest bar fills it."""
        return HEIGHT / (max((max(bar.share, bar.share_before) for bar in self.bars), default=0.0) or 1.0)

    @property
    def outlines(self) -> tuple[str, str]:
        """A histogram of this version, and of the other one, as paths in the picture: they take less room than bars."""
        shares = zip(*((bar.share, bar.share_before) for bar in self.bars), strict=True)
        now, before = ([(n * self.step, share * self.scale) for n, share in enumerate(each)] for each in shares)
        return _outline(now), _outline(before)

    @property
    def highest(self) -> str:
        """The label of the highest bar of this version."""
        return max(self.bars, key=lambda bar: bar.share).label if self.bars else ""


@dataclass(frozen=True, slots=True)
class TableFigures:
    """One table."""

    name: str
    rows: int
    rows_before: int | None
    """Rows of the version that the target names; None without one."""
    columns: tuple[ColumnFigures, ...]
    more: int
    """Columns that are not shown."""
    moved: tuple[str, ...]
    """What changed in the shares of missing values by one in a hundred or more, in words."""


def table_figures(name: str, profile: TableProfile, before: TableProfile | None) -> TableFigures:
    """Lay out the profile of a table beside that of the version that the target names."""
    shown = list(profile.ordered().items())[:MOST_COLUMNS]
    old = before.columns if before else {}
    columns = [_column(column, figures, old.get(column)) for column, figures in shown]
    columns += [_skipped(column, kind) for column, kind in profile.skipped.items()][: MOST_COLUMNS - len(columns)]
    more = len(profile.columns) + len(profile.skipped) - len(columns)
    moved = tuple(_moved(profile.ordered(), old))
    return TableFigures(name, profile.rows, before.rows if before else None, tuple(columns), more, moved)


def _moved(now: Mapping[str, ColumnProfile], before: Mapping[str, ColumnProfile]) -> Iterable[str]:
    for name, column in now.items():
        old = before.get(name)
        if old and abs(_missing_share(column) - _missing_share(old)) >= 0.01:  # noqa: PLR2004 - as documented
            yield f"{name}: {_missing(column)} missing, {_missing(old)} before"


def _column(name: str, now: ColumnProfile, before: ColumnProfile | None) -> ColumnFigures:
    return ColumnFigures(
        name,
        now.type.lower(),
        *(_missing(now), _missing(before) if before else ""),
        *(_distinct(now), _distinct(before) if before else ""),
        *(_span(now), _span(before) if before else ""),
        # A column that became another kind has no values that fit into the same picture.
        bars=tuple(_bars(now, before if before and before.kind == now.kind else None)),
        note="may be personal: counted only" if now.withheld else "",
        is_histogram=not _is_categorical(now),
    )


def _skipped(name: str, kind: str) -> ColumnFigures:
    return ColumnFigures(name, kind.partition("(")[0].lower(), "", "", "", "", "", "", (), note="not profiled")


def _missing_share(column: ColumnProfile) -> float:
    return 1 - column.values / column.rows if column.rows else 0.0


def _missing(column: ColumnProfile) -> str:
    share = _missing_share(column)
    if share == 0:
        return "none"
    # One missing value in a million is not none.
    return "< 0.01 %" if share < 0.0001 else f"{100 * share:.3g} %"  # noqa: PLR2004 - the smallest share that is written


def _distinct(column: ColumnProfile) -> str:
    # Without counts it is an estimate within some percent, so more than two digits would pretend.
    return f"{column.distinct:,}" if column.counts is not None else f"about {float(f'{column.distinct:.2g}'):,.0f}"


def _span(column: ColumnProfile) -> str:
    if column.least is None or column.greatest is None or column.mean is None:
        return ""
    if column.kind == "time":
        return f"{_time(column.least)} to {_time(column.greatest)}"
    return f"{_number(column.least)} to {_number(column.greatest)}, mean {_number(column.mean)}"


def _number(value: float) -> str:
    return f"{value:.6g}"


def _time(microseconds: float) -> str:
    try:
        return (EPOCH + timedelta(microseconds=microseconds)).strftime("%Y-%m-%d %H:%M").removesuffix(" 00:00")
    except OverflowError:  # years that Python's calendar lacks
        return f"{microseconds / 1e6:.6g} s since 1970"


def _bars(now: ColumnProfile, before: ColumnProfile | None) -> list[Bar]:
    """A bar for each value of categories, else a histogram; none without values, or where they may not be shown."""
    categories = now.value_counts()
    if _is_categorical(now):
        old = before.value_counts() if before else {}
        names = sorted(categories, key=lambda value: (-categories[value], value))[:MOST_BARS]
        shares = [(name[:SHOWN], _share(categories, name), _share(old, name)) for name in names]
    else:
        shares = _histogram(now, before.quantiles if before else ()) if now.quantiles else []
    return [
        Bar(share, share_before, f"{label}: {share:.1%}" + (f", before {share_before:.1%}" if before else ""))
        for label, share, share_before in shares
    ]


def _is_categorical(column: ColumnProfile) -> bool:
    """Whether single values have a bar each."""
    values = len(column.value_counts())
    return 0 < values <= MOST_BARS or (column.kind in ("text", "flag") and values > 0)


def _outline(steps: Sequence[tuple[float, float]]) -> str:
    """The path of a histogram that stands on the picture's lower edge; empty without any height."""
    if not any(height for _, height in steps):
        return ""
    width = steps[1][0] - steps[0][0] if len(steps) > 1 else WIDTH
    tops = "".join(f"H{left:.4g}V{HEIGHT - height:.4g}" for left, height in steps)
    return f"M0 {HEIGHT}{tops}H{steps[-1][0] + width:.4g}V{HEIGHT}"


def _share(counts: Mapping[str, int], value: str) -> float:
    return counts.get(value, 0) / max(sum(counts.values()), 1)


def _histogram(column: ColumnProfile, before: Sequence[float]) -> list[tuple[str, float, float]]:
    """The label and both shares of each bin. The bins are those of both versions together; none of endless width."""
    low, high = min([*column.quantiles, *before]), max([*column.quantiles, *before])
    if not math.isfinite(high - low):
        return []
    # Where all values are the same, any width does but 0, by which `_binned` would divide.
    width = (high - low) / BINS or 1.0
    now, old = (_binned(quantiles, low, width) for quantiles in (column.quantiles, before))
    text = _time if column.kind == "time" else _number
    return [
        (
            f"{text(low + number * width)} to {text(low + (number + 1) * width)}",
            now[number] / len(column.quantiles),
            old[number] / len(before) if before else 0.0,
        )
        for number in range(BINS)
    ]


def _binned(quantiles: Sequence[float], low: float, width: float) -> Counter[int]:
    return Counter(min(BINS - 1, math.floor((quantile - low) / width)) for quantile in quantiles)


def rows_text(table: TableFigures) -> str:
    """The rows of a table in both versions, in words."""
    rows = count_text(table.rows, "row")
    if table.rows_before in (None, table.rows):
        return rows if table.rows_before is None else f"{rows}, as before"
    return f"{rows}, {table.rows_before:,} before"
