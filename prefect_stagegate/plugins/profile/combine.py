"""Merges the profiles of files into that of their table. Pure; the order of the files makes no difference.

Counts, sums, extremes, means and deviations merge exactly. Each quantile of a file stands for an equal share of its
values, so the quantiles of all files, weighted, are the table's within half a share in rank: 0.25 % of the values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from prefect_stagegate.plugins.profile.profiles import LEVELS, MANY_VALUES, ColumnProfile, TableProfile
from prefect_stagegate.plugins.profile.sketch import estimate, union
from prefect_stagegate.validations.engines.merging import MERGES

FEW_NAMES = 50
"""The most values of a text column that are shown."""
FREQUENT = 10
"""The fewest rows that each of them must have: what stands in fewer may be about somebody."""


def combine(profiles: Sequence[TableProfile]) -> TableProfile:
    """The profile of all files together. All profiles must have the same columns.

    Args:
        profiles: At least one.
    """
    if len(profiles) == 1:
        return profiles[0]
    columns = {name: _column([profile.columns[name] for profile in profiles]) for name in profiles[0].columns}
    return TableProfile(sum(profile.rows for profile in profiles), columns, profiles[0].skipped)


def _column(parts: Sequence[ColumnProfile]) -> ColumnProfile:
    counts = _counts(parts)
    sketch = union([part.sketch for part in parts])
    values = sum(part.values for part in parts)
    return replace(
        parts[0],
        values=values,
        nulls=sum(part.nulls for part in parts),
        nonfinite=sum(part.nonfinite for part in parts),
        distinct=min(values, estimate(sketch)) if counts is None else len(counts),
        least=MERGES["column.min"].merge([(part.least,) for part in parts]),
        greatest=MERGES["column.max"].merge([(part.greatest,) for part in parts]),
        mean=MERGES["column.mean"].merge([(part.mean, part.values) for part in parts if part.mean is not None]),
        deviation=MERGES["column.standard_deviation"].merge(
            [(part.deviation, part.values, part.mean) for part in parts if part.mean is not None]
        ),
        quantiles=mixture([(part.quantiles, part.values) for part in parts if part.quantiles]),
        counts=counts,
        names={value: name for part in parts for value, name in part.names.items()},
        sketch=sketch,
    )


def _counts(parts: Sequence[ColumnProfile]) -> dict[str, int] | None:
    """Rows by value of all parts; None where one has too many values, or all of them together."""
    total: Counter[str] = Counter()
    for part in parts:
        if part.counts is None:
            return None
        total.update(part.counts)
    return dict(total) if len(total) <= MANY_VALUES else None


def mixture(parts: Sequence[tuple[Sequence[float], int]]) -> tuple[float, ...]:
    """The quantiles of all values, from the quantiles of each part and its number of values."""
    points = sorted((point, values / len(quantiles)) for quantiles, values in parts for point in quantiles)
    total = sum(values for _, values in parts)
    quantiles: list[float] = []
    below = 0.0
    for point, weight in points:
        below += weight
        # All levels within this point's share. The levels are the middles of shares, so rounding never hits an edge.
        while len(quantiles) < LEVELS and (len(quantiles) + 0.5) / LEVELS * total <= below:
            quantiles.append(point)
    return tuple(quantiles)


def with_categories(profile: TableProfile, known: Mapping[str, Mapping[str, str]]) -> TableProfile:
    """The profile with the names of categories only.

    Args:
        profile: A table's profile, with the names of all texts that were read.
        known: Names of categories from an earlier profile, by column.
    """
    columns = {
        name: replace(column, names=_names(column, {**known.get(name, {}), **column.names}))
        for name, column in profile.columns.items()
    }
    return replace(profile, columns=columns)


def _names(column: ColumnProfile, known: Mapping[str, str]) -> dict[str, str]:
    counts = column.counts or {}
    if len(counts) > FEW_NAMES or any(count < FREQUENT for count in counts.values()) or not counts.keys() <= set(known):
        return {}
    return {value: known[value] for value in counts}


def without_names(profile: TableProfile) -> TableProfile:
    """The profile without any text of the data."""
    return replace(profile, columns={name: replace(column, names={}) for name, column in profile.columns.items()})
