"""Profiles of tables as pages show them: a row for each column, with a small picture of its values."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from prefect_stagegate.errors import CatalogError
from prefect_stagegate.plugins.profile.profiles import ColumnProfile, TableProfile
from prefect_stagegate.plugins.profile.profiling import kept_profiles
from prefect_stagegate.show.document import Bar, Cell, Figure, Section, Table, VersionBeside
from prefect_stagegate.units import count_text
from prefect_stagegate.workspace import Workspace

MOST_COLUMNS = 50
"""Columns of a table that are shown; the others are counted."""
MOST_CHANGED = 50
"""Columns of each kind that a table's change names; the others are counted."""
BINS = 24
"""Bars of a histogram. It leaves out the outermost quarter of a percent on both sides, where outliers are."""
MOST_BARS = 12
"""Values of a column of categories that have a bar: the most frequent."""
NAMED = 3
"""Values of such a column that its row names."""
SHOWN = 40
"""Characters of a value that are shown."""
KINDS = {"added": "new columns", "removed": "columns gone", "retyped": "other types"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ColumnFigures:
    """One column of a table, as the JSON document has it. `before` stands for the other version."""

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

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The row of the column."""
        values = self.span
        if self.bars and not self.span and not self.is_histogram:
            values = "; ".join([*(bar.label for bar in self.bars[:NAMED]), *["…"][: len(self.bars) - NAMED]])
        return (
            Cell(self.name, self.type),
            Cell(self.missing, _was(self.missing, self.missing_before)),
            Cell(self.distinct, _was(self.distinct, self.distinct_before)),
            Cell(values, self.note or _was(self.span, self.span_before)),
            Cell(figure=Figure(self.name, self.bars, self.is_histogram)) if self.bars else Cell(),
        )


def table_sections(workspace: Workspace, subject: VersionBeside) -> list[Section]:
    """The kept profiles of a version's tables, beside those of the other version."""
    version = subject.version
    try:
        now = kept_profiles(workspace, version, version.spec.contract.tables)
        is_beside = subject.before not in ("", version.digest)
        before = kept_profiles(workspace, version, now, subject.before) if is_beside else {}
    except CatalogError as error:
        log.warning("The page does not say what the tables hold: %s", error)
        now, before = {}, {}
    return [tables_section(now, before, subject.names)]


def tables_section(
    now: Mapping[str, TableProfile], before: Mapping[str, TableProfile], names: tuple[str, str]
) -> Section:
    """Lay out the profiles of tables, by their names, beside those of another version."""
    parts, tables, changes = [], [], []
    for name, profile in now.items():
        old = before.get(name)
        columns = _columns(profile, old)
        more = len(profile.columns) + len(profile.skipped) - len(columns)
        counts = {"rows": profile.rows, "rows_before": old.rows if old else None}
        moved = list(_moved(profile.ordered(), old.columns if old else {}))
        tables.append({"name": name, **counts, "columns": list(map(asdict, columns)), "more": more, "moved": moved})
        kinds = _changed_columns(profile, old) if old else {}
        if old:
            changed = {kind: columns[:MOST_CHANGED] for kind, columns in kinds.items()}
            left = sum(len(columns) - len(changed[kind]) for kind, columns in kinds.items())
            changes.append({"name": name, **counts, **changed, "more": left})
        parts.append(
            Table(
                ("Column", "Missing", "Distinct", "Values", "Distribution"),
                tuple(column.cells for column in columns),
                name,
                _summary(profile, old, kinds, moved),
                names if old else None,
                more,
            )
        )
    return Section("Tables", tuple(parts), {"profiles": tables, "changes": {"tables": changes}})


def _summary(now: TableProfile, before: TableProfile | None, kinds: Mapping[str, list[str]], moved: list[str]) -> str:
    rows = count_text(now.rows, "row")
    if before:
        rows += ", as before" if before.rows == now.rows else f", {before.rows:,} before"
    texts = [f"{rows}, {count_text(len(now.columns) + len(now.skipped), 'column')}"]
    for kind, columns in kinds.items():
        if columns:
            more = len(columns) - MOST_CHANGED
            texts.append(f"{KINDS[kind]}: {', '.join(columns[:MOST_CHANGED])}{f' and {more} more' if more > 0 else ''}")
    return "; ".join([*texts, *([f"missing values: {'; '.join(moved)}"] if moved else [])])


def _changed_columns(now: TableProfile, before: TableProfile) -> dict[str, list[str]]:
    types, types_before = _types(now), _types(before)
    return {
        "added": [column for column in types if column not in types_before],
        "removed": [column for column in types_before if column not in types],
        "retyped": [
            f"{column}: {types_before[column]} → {kind}"
            for column, kind in types.items()
            if types_before.get(column, kind) != kind
        ],
    }


def _types(profile: TableProfile) -> dict[str, str]:
    columns = {name: column.type for name, column in profile.ordered().items()}
    return {name: kind.lower() for name, kind in (columns | dict(profile.skipped)).items()}


def _was(now: str, before: str) -> str:
    return f"before {before}" if before not in ("", now) else ""


def _columns(profile: TableProfile, before: TableProfile | None) -> list[ColumnFigures]:
    shown = list(profile.ordered().items())[:MOST_COLUMNS]
    old = before.columns if before else {}
    columns = [_column(column, figures, old.get(column)) for column, figures in shown]
    return columns + [_skipped(*each) for each in profile.skipped.items()][: MOST_COLUMNS - len(columns)]


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
