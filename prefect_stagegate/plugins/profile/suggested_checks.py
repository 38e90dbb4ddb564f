"""A suite that a profiled table keeps, with the reason for each bound, for a person to edit. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_stagegate.plugins.profile.combine import FREQUENT
from prefect_stagegate.plugins.profile.profiles import ColumnProfile, TableProfile
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.queries.duck import INTEGERS

MARGIN = 0.1
"""How far beyond its extremes a column of numbers may go, as a share of its range."""
FEWEST_VALUES = 0.5
"""The share of rows with a value below which no share is suggested."""
FEW_NUMBERS = 31
"""The most whole numbers that are suggested as a set: days of a month."""
ALMOST_UNIQUE = 0.9
"""The share of distinct values, which are estimated, from which on a column is tried as a key."""
SMALLEST = 1e-300
"""The smallest margin that a float has digits for."""
PANDAS = "pandas"
PARAMETER = "${"
"""What a suite's parameters begin with."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One expectation and its reason. Without a type it only says why there is none."""

    column: str
    """The column that it is about; empty for the table."""
    reason: str
    type: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def key_candidates(profile: TableProfile) -> list[str]:
    """The columns that may be a key of the table, by their estimated number of values."""
    return [
        name
        for name, column in profile.ordered().items()
        if 1 < column.values == profile.rows
        and (column.kind in ("text", "other") or column.type in INTEGERS)
        and column.distinct >= ALMOST_UNIQUE * profile.rows
    ]


def suggest(profile: TableProfile, keys: Collection[str], types: Mapping[str, str], engine: str) -> list[Suggestion]:
    """Suggest a suite that the table keeps.

    Args:
        profile: The table's profile.
        keys: Columns in which no value occurs twice.
        types: The contract's types of columns.
        engine: What will evaluate it.
    """
    lowest, highest = _rounded_down(profile.rows / 2), -_rounded_down(-profile.rows * 2)
    rows = Suggestion(
        "",
        f"{count_text(profile.rows, 'row')} now: half to twice as many.",
        "expect_table_row_count_to_be_between",
        {"min_value": int(lowest), "max_value": int(highest)},
    )
    columns = (
        suggestion
        for name, column in profile.ordered().items()
        for suggestion in _column(name, column, types.get(name, ""), engine, unique=name in keys)
    )
    return [rows, *columns] if profile.rows else []


def _column(name: str, column: ColumnProfile, kind: str, engine: str, *, unique: bool) -> Iterator[Suggestion]:
    if PARAMETER in name:
        yield Suggestion(name, f"Nothing: a suite takes the {PARAMETER} in its name for a parameter.")
        return
    # pandas knows no difference between NaN and no value.
    yield _presence(name, column, column.nulls + (column.nonfinite if engine == PANDAS else 0))
    if unique:
        reason = f"No value occurs twice in {count_text(column.values, 'row')}."
        yield Suggestion(name, reason, "expect_column_values_to_be_unique", {"column": name})
    elif kind == "duration":
        yield Suggestion(name, "No bounds: engines measure durations in different units.")
    elif values := _values(column):
        reason = f"{count_text(len(values), 'value')}, each in at least {FREQUENT} rows."
        yield Suggestion(name, reason, "expect_column_values_to_be_in_set", {"column": name, "value_set": values})
    elif column.kind == "number" and column.nonfinite:
        yield Suggestion(name, f"No bounds: {count_text(column.nonfinite, 'row')} with NaN or infinity.")
    elif column.kind == "number" and column.least is not None and column.greatest is not None:
        yield _between(name, column.least, column.greatest)


def _presence(name: str, column: ColumnProfile, missing: int) -> Suggestion:
    expectation = "expect_column_values_to_not_be_null"
    if not missing:
        return Suggestion(name, "No row lacks a value.", expectation, {"column": name})
    share = missing / column.rows
    reason = f"{share:.2%} of the rows have no value{', or none that is finite' if missing > column.nulls else ''}"
    # Half as many again, and one in a hundred more.
    mostly = math.floor(100 * (1 - 1.5 * share - 0.01)) / 100
    if mostly < FEWEST_VALUES:
        return Suggestion(name, f"{reason}: no share suggested.")
    return Suggestion(name, f"{reason}: half as many again may.", expectation, {"column": name, "mostly": mostly})


def _values(column: ColumnProfile) -> list[Any]:
    """The values that a column may have; empty where it has too many, or rare ones."""
    counts = column.value_counts()
    if not counts or any(count < FREQUENT for count in counts.values()):
        return []
    if column.kind == "text":
        return [] if any(PARAMETER in value for value in counts) else sorted(counts)
    is_set = column.type in INTEGERS and 1 < len(counts) <= FEW_NUMBERS
    return sorted(map(int, counts)) if is_set else []


def _between(name: str, least: float, greatest: float) -> Suggestion:
    margin = MARGIN * ((greatest - least) or abs(greatest) or 1)
    if not SMALLEST < margin < math.inf:
        return Suggestion(
            name, f"No bounds: {least:.7g} to {greatest:.7g} now, and there is no number far enough beyond."
        )
    unit = max(margin, 1) if isinstance(least, int) and isinstance(greatest, int) else margin
    lowest, highest = _rounded_down(least - margin, unit), -_rounded_down(-greatest - margin, unit)
    # What is never negative stays so.
    bounds = {"min_value": max(lowest, 0) if least >= 0 else lowest, "max_value": highest}
    now = f"{least:.7g} in all rows" if least == greatest else f"{least:.7g} to {greatest:.7g} now"
    reason = f"{now}, and a tenth of {'it' if least == greatest else 'that range'} either way."
    return Suggestion(name, reason, "expect_column_values_to_be_between", {"column": name, **bounds})


def _rounded_down(value: float, unit: float = 0.0) -> float:
    """The next number down with as many digits as `unit` asks for: by default two. Whole numbers stay whole.

    >>> _rounded_down(168_388), _rounded_down(-3.24, 0.5)
    (160000, -3.3)
    """
    unit = unit or abs(value) / 10
    if not unit:
        return 0
    digits = -math.floor(math.log10(unit))
    scaled = math.floor(value * 10.0**digits)
    return round(scaled / 10.0**digits, digits) if digits > 0 else scaled * 10**-digits
