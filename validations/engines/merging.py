"""How aggregates of single files become those of their table. Pure.

    aggregates_of(metric).merge([values of a file, …]) → the table's value

A file's values are those that the database computed over it: the metric itself, then what `needs` names. `None` stands
for a file of which no row counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Part = Sequence[Any]
"""The values of one file, as JSON has them."""


@dataclass(frozen=True, slots=True)
class Merge:
    """How one metric merges."""

    merge: Callable[[Sequence[Part]], Any]
    needs: tuple[str, ...] = ()
    """More aggregates of the same column that are needed for it: `count`, `mean`."""
    of_values: bool = False
    """Whether it is a value of the column itself."""

    @property
    def is_count(self) -> bool:
        """Whether it counts rows, so that it tells no value even where a file has one row."""
        return self.merge is _count


def _count(files: Sequence[Part]) -> int:
    return sum(count or 0 for (count,) in files)


def _total(values: Sequence[float]) -> float | None:
    if not values:
        return None
    if all(isinstance(value, int) for value in values):
        return sum(values)
    try:
        # `fsum` rounds once, so that the order of the files makes no difference.
        return math.fsum(values)
    except (ValueError, OverflowError):  # infinities of both signs, or numbers whose sum is one
        return sum(values)


def _least(files: Sequence[Part]) -> Any:
    return min(_known(files), key=_order, default=None)


def _greatest(files: Sequence[Part]) -> Any:
    return max(_known(files), key=_order, default=None)


def _order(value: Any) -> tuple[bool, Any]:
    """Sorts NaN above all numbers, as DuckDB does; Python sorts it anywhere."""
    return value != value, value  # noqa: PLR0124 - only NaN differs from itself


def _mean(files: Sequence[Part]) -> float | None:
    counted = [(mean, count) for mean, count in files if count]
    rows = sum(count for _, count in counted)
    total = _total([mean * count for mean, count in counted])
    return None if total is None else total / rows


def _deviation(files: Sequence[Part]) -> float | None:
    """The sample standard deviation by counts, means and deviations (Chan, Golub, LeVeque 1979)."""
    counted = [(deviation or 0.0, count, mean) for deviation, count, mean in files if count]
    rows = sum(count for _, count, _ in counted)
    if rows <= 1:
        return None
    mean = _mean([(of_file, count) for _, count, of_file in counted]) or 0.0
    within = (deviation * deviation * (count - 1) for deviation, count, _ in counted)
    between = (count * (of_file - mean) * (of_file - mean) for _, count, of_file in counted)
    return math.sqrt((_total([*within, *between]) or 0.0) / (rows - 1))


def _known(files: Iterable[Part]) -> list[Any]:
    return [value for (value,) in files if value is not None]


COUNTS = ".unexpected_count"
"""What the names of all metrics end with that count refused rows."""
MERGES = {
    "table.row_count": Merge(_count),
    "column.non_null_count": Merge(_count),
    "column.sum": Merge(lambda files: _total(_known(files))),
    "column.min": Merge(_least, of_values=True),
    "column.max": Merge(_greatest, of_values=True),
    "column_values.length.min": Merge(_least),
    "column_values.length.max": Merge(_greatest),
    "column.mean": Merge(_mean, ("count",)),
    "column.standard_deviation": Merge(_deviation, ("count", "mean")),
}


def merge_of(metric: str) -> Merge | None:
    """How a metric of Great Expectations merges; None where it has to be computed over the whole table."""
    return Merge(_count) if metric.endswith(COUNTS) else MERGES.get(metric)
