"""How far the columns of a table moved from those of another version.

The distances are the defaults of Evidently above 1,000 rows (https://docs.evidentlyai.com/metrics/customize_data_drift):
for numbers the first Wasserstein distance in standard deviations of the reference; for categories, and for numbers with
at most five values, the Jensen-Shannon distance. Each table is read twice, and memory depends on its columns only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect_stagegate.measures import ColumnDrift, TableDrift
from prefect_stagegate.quoting import identifier
from prefect_stagegate.validations.queries.duck import Queries
from prefect_stagegate.validations.queries.sql import is_text

LEVELS = 200
"""Quantiles that stand for a column of numbers: the error is far below a hundredth of a standard deviation."""
FEW_VALUES = 5
"""A column of numbers with at most this many values counts as categories."""
MANY_VALUES = 1000
"""Categories with more values are names or identifiers. Each delivery has new ones, so they are not compared."""
FURTHEST = math.sqrt(math.log(2))
"""The Jensen-Shannon distance of counts that share no value."""
SMALLEST_NORM = 0.001
"""Lower bound of the reference's standard deviation, which the distance is divided by."""
NUMBERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    *("FLOAT", "DOUBLE", "DECIMAL"),
)
CATEGORIES = ("VARCHAR", "BOOLEAN", "ENUM", '"NULL"')


@dataclass
class Profile:
    """The figures of one column."""

    number: bool
    values: int = 0
    """Rows with a value; in a column of numbers, with a finite one."""
    distinct: int = 0
    """Distinct values, approximately."""
    deviation: float = 0.0
    quantiles: Sequence[float] = ()
    counts: Mapping[Any, int] = field(default_factory=dict)
    """Rows by value, None for a missing value. Empty for a column with many values."""


@dataclass
class Profiles:
    """The figures of one table's columns."""

    rows: int = 0
    columns: dict[str, Profile] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    """The types of columns that can't be compared."""


def column_types(queries: Queries, view: Path, paths: Sequence[str]) -> dict[str, str]:
    """The columns of all files of a table, each with DuckDB's name of its type.

    Numbers in text files have no width, so their type is `number`, with fractions or without.

    Args:
        queries: An open database.
        view: The version's folder.
        paths: The table's files.
    """
    if not paths:
        return {}
    text = any(is_text(path) for path in paths)
    kinds = queries.columns(queries.relation(view, paths))
    return {name: "number" if text and kind.partition("(")[0] in NUMBERS else kind for name, kind in kinds.items()}


def drift(table: str, reference: Profiles, current: Profiles, ignored: Sequence[str]) -> TableDrift:
    """Compare two profiles of a table, column by column."""
    names = dict.fromkeys([*reference.columns, *reference.other, *current.columns, *current.other])
    columns = (
        _ignored(table, name)
        if name in ignored or f"{table}.{name}" in ignored
        else _column(table, name, reference, current)
        for name in names
    )
    return TableDrift(current.rows, reference.rows, tuple(columns))


def profile(queries: Queries, view: Path, paths: Sequence[str]) -> Profiles:
    """Profile all comparable columns of a table in two passes: figures, then rows by value where values are few."""
    if not paths:
        return Profiles()
    rows = queries.relation(view, paths)
    kinds = {name: kind.partition("(")[0] for name, kind in queries.columns(rows).items()}
    columns = {name: Profile(kind in NUMBERS) for name, kind in kinds.items() if kind in (*NUMBERS, *CATEGORIES)}
    other = {name: kind for name, kind in kinds.items() if name not in columns}
    # Pass 1: figures of all columns.
    expressions = ", ".join(["count(*)", *(_figures(name, column.number) for name, column in columns.items())])
    ((total, *records),) = queries.rows(f"SELECT {expressions} FROM ({rows})")  # noqa: S608 - names are quoted
    for column, record in zip(columns.values(), records, strict=True):
        column.values, column.distinct, column.deviation, quantiles = record.values()
        column.quantiles = quantiles or ()
    # Pass 2: rows by value, only where the first pass saw few values.
    _count(queries, rows, total, {n: column for n, column in columns.items() if column.distinct <= _most(column)})
    return Profiles(total, columns, other)


def _figures(name: str, number: bool) -> str:
    column = identifier(name)
    if not number:
        return f"struct_pack(v := count({column}), d := approx_count_distinct({column}), s := 0.0, q := NULL)"
    value = f"CAST({column} AS DOUBLE)"
    levels = ", ".join(f"{(level + 0.5) / LEVELS:g}" for level in range(LEVELS))
    finite = f"FILTER (isfinite({value}))"
    return (
        f"struct_pack(v := count({column}) {finite}, d := approx_count_distinct({column}), "
        f"s := coalesce(stddev_pop({value}) {finite}, 0.0), q := approx_quantile({value}, [{levels}]) {finite})"
    )


def _most(column: Profile) -> int:
    """The most distinct values with which a column's values are counted."""
    # approx_count_distinct errs by some percent, so count twice as many; `_is_category` looks at the exact counts.
    return 2 * FEW_VALUES if column.number else MANY_VALUES


def _count(queries: Queries, rows: str, total: int, few: Mapping[str, Profile]) -> None:
    if not few:
        return
    expressions = ", ".join(f"histogram({identifier(name)})" for name in few)
    (histograms,) = queries.rows(f"SELECT {expressions} FROM ({rows})")  # noqa: S608 - names are quoted
    for column, counts in zip(few.values(), histograms, strict=True):
        column.counts = dict(counts or {})
        if missing := total - sum(column.counts.values()):
            column.counts[None] = missing


def _ignored(table: str, name: str) -> ColumnDrift:
    return ColumnDrift(table, name, None, skipped="ignored by the gate")


def _column(table: str, name: str, reference: Profiles, current: Profiles) -> ColumnDrift:
    # First the reasons not to compare, then the distance that fits the kind of column.
    before, now = reference.columns.get(name), current.columns.get(name)
    if before is None or now is None or (before.values and now.values and before.number != now.number):
        kind = current.other.get(name) or reference.other.get(name)
        reason = f"a {kind} is not compared" if kind else "it is not in both versions with one kind of values"
        return ColumnDrift(table, name, None, skipped=reason)
    if not before.values and not now.values:
        return ColumnDrift(table, name, None, skipped="it has no values in either version")
    if before.values and now.values and before.number and not _is_category(before):
        return ColumnDrift(table, name, wasserstein(before, now), "wasserstein")
    if before.values and now.values and not before.counts:
        return ColumnDrift(table, name, None, skipped=f"it has more than {MANY_VALUES:,} values")
    # A column that emptied or filled, or whose few values became many, gets the largest distance.
    compared = before.values and now.values and now.counts
    return ColumnDrift(
        table, name, jensen_shannon(before.counts, now.counts) if compared else FURTHEST, "jensen-shannon"
    )


def _is_category(column: Profile) -> bool:
    return 0 < len(column.counts.keys() - {None}) <= FEW_VALUES


def wasserstein(reference: Profile, current: Profile) -> float:
    """The first Wasserstein distance in standard deviations of the reference: the mean distance of their quantiles."""
    moved = (abs(a - b) for a, b in zip(reference.quantiles, current.quantiles, strict=True))
    return math.fsum(moved) / LEVELS / max(reference.deviation, SMALLEST_NORM)


def jensen_shannon(reference: Mapping[Any, int], current: Mapping[Any, int]) -> float:
    """The Jensen-Shannon distance of two counts, 0 to 0.83 (the root of ln 2), as SciPy computes it.

    >>> round(jensen_shannon({"a": 1, "b": 1}, {"a": 1, "b": 1}), 3), round(jensen_shannon({"a": 1}, {"b": 1}), 3)
    (0.0, 0.833)
    """
    p, q = _shares(reference), _shares(current)
    divergence = math.fsum(_terms(p, q)) / 2 + math.fsum(_terms(q, p)) / 2
    return math.sqrt(max(divergence, 0.0))


def _shares(counts: Mapping[Any, int]) -> dict[Any, float]:
    total = sum(counts.values())
    return {value: count / total for value, count in counts.items()}


def _terms(p: Mapping[Any, float], q: Mapping[Any, float]) -> Iterator[float]:
    return (share * math.log(2 * share / (share + q.get(value, 0.0))) for value, share in p.items() if share)
