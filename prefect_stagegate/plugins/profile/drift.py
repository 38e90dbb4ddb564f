"""How far the columns of a table moved from those of another version.

The distances are the defaults of Evidently above 1,000 rows (https://docs.evidentlyai.com/metrics/customize_data_drift):
for numbers the first Wasserstein distance in standard deviations of the reference; for categories, and for numbers with
at most five values, the Jensen-Shannon distance. Both are computed from profiles, so no row is read here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefect_stagegate.model.measures import ColumnDrift, TableDrift
from prefect_stagegate.plugins.profile.parts import profile_table
from prefect_stagegate.plugins.profile.profiles import LEVELS, MANY_VALUES, ColumnProfile, TableProfile
from prefect_stagegate.validations.queries.duck import Queries
from prefect_stagegate.validations.queries.relations import TableFiles

FEW_VALUES = 5
"""A column of numbers with at most this many values counts as categories."""
FURTHEST = math.sqrt(math.log(2))
"""The Jensen-Shannon distance of counts that share no value."""
SMALLEST_NORM = 0.001
"""Lower bound of the reference's standard deviation, which the distance is divided by."""


def drift(table: str, reference: TableProfile, current: TableProfile, ignored: Sequence[str]) -> TableDrift:
    """Compare two profiles of a table, column by column."""
    names = dict.fromkeys([*reference.columns, *reference.skipped, *current.columns, *current.skipped])
    columns = (
        ColumnDrift(table, name, None, skipped="ignored by the gate")
        if is_ignored(table, name, ignored)
        else _column(table, name, reference, current)
        for name in names
    )
    return TableDrift(current.rows, reference.rows, tuple(columns))


def is_ignored(table: str, column: str, ignored: Sequence[str]) -> bool:
    """Whether a column is named by `ignored`, alone or as `table.column`."""
    return column in ignored or f"{table}.{column}" in ignored


def profile(queries: Queries, table: TableFiles) -> TableProfile:
    """Profile a table whose rows are compared, as a whole."""
    return profile_table(queries, table, {path: path for path in table.files}).profile


def _comparable(profile: TableProfile, name: str) -> ColumnProfile | None:
    column = profile.columns.get(name)
    return column if column and column.kind in ("number", "flag", "text") else None


def _column(table: str, name: str, reference: TableProfile, current: TableProfile) -> ColumnDrift:
    # First the reasons not to compare, then the distance that fits the kind of column.
    before, now = _comparable(reference, name), _comparable(current, name)
    if before is None or now is None or (before.values and now.values and _is_number(before) != _is_number(now)):
        kind = _other(current, name) or _other(reference, name)
        reason = f"a {kind} is not compared" if kind else "it is not in both versions with one kind of values"
        return ColumnDrift(table, name, None, skipped=reason)
    if not before.values and not now.values:
        return ColumnDrift(table, name, None, skipped="it has no values in either version")
    counts, counts_now = _counts(before), _counts(now)
    if before.values and now.values and _is_number(before) and not 0 < len(counts.keys() - {None}) <= FEW_VALUES:
        return ColumnDrift(table, name, wasserstein(before, now), "wasserstein")
    if before.values and now.values and not counts:
        return ColumnDrift(table, name, None, skipped=f"it has more than {MANY_VALUES:,} values")
    # A column that emptied or filled, or whose few values became many, gets the largest distance.
    compared = before.values and now.values and counts_now
    return ColumnDrift(table, name, jensen_shannon(counts, counts_now) if compared else FURTHEST, "jensen-shannon")


def _is_number(column: ColumnProfile) -> bool:
    return column.kind == "number"


def _other(profile: TableProfile, name: str) -> str:
    """The type of a column that can't be compared; empty where it can, or the table lacks it."""
    if _comparable(profile, name):
        return ""
    column = profile.columns.get(name)
    return (column.type if column else profile.skipped.get(name, "")).partition("(")[0]


def _counts(column: ColumnProfile) -> dict[str | None, int]:
    """Rows by value, None for a missing value; empty for a column with many values."""
    if column.counts is None or (_is_number(column) and len(column.counts) > 2 * FEW_VALUES):
        return {}
    counts: dict[str | None, int] = dict(column.counts.items())
    if column.nulls:
        counts[None] = column.nulls
    return counts


def wasserstein(reference: ColumnProfile, current: ColumnProfile) -> float:
    """The first Wasserstein distance in standard deviations of the reference: the mean distance of their quantiles."""
    moved = (abs(a - b) for a, b in zip(reference.quantiles, current.quantiles, strict=True))
    # The sample deviation is that of the population, but for its divisor.
    deviation = (reference.deviation or 0.0) * math.sqrt(max(reference.values - 1, 0) / max(reference.values, 1))
    return math.fsum(moved) / LEVELS / max(deviation, SMALLEST_NORM)


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
