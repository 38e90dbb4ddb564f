"""Folders named `key=value`, as Hive, Spark and most lakes lay out their partitions.

Pure: no I/O.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

from prefect_stagegate.spec.source_specs import COMPARISON

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def partitions_of(key: str) -> dict[str, str]:
    """The partition values in an object's folder names, percent-decoded.

    >>> partitions_of("year=2013/day=06%2F01/part-0.parquet")
    {'year': '2013', 'day': '06/01'}
    """
    folders = (folder.partition("=") for folder in key.split("/")[:-1] if "=" in folder)
    return {unquote(name): unquote(value) for name, _, value in folders}


def in_partitions(key: str, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether an object lies in wanted partitions: for each partition key, one of the conditions must hold.

    A folder's key ends with a slash. It passes while the partitions that it names so far do.

    >>> in_partitions("year=2013/a.csv", {"year": [">=2012,<2014"]}), in_partitions("a.csv", {"year": ["2013"]})
    (True, False)
    """
    if not wanted:
        return True
    values, is_folder = partitions_of(key), key.endswith("/")
    return all(
        any(_holds(values[name], condition) for condition in conditions) if name in values else is_folder
        for name, conditions in wanted.items()
    )


def _holds(value: str, condition: str) -> bool:
    comparisons = [COMPARISON.fullmatch(part) for part in condition.split(",")]
    # Every part is a comparison (`>=2012,<2014`): all must hold. Else the condition is one value.
    if all(comparisons):
        return all(_COMPARE[match[1]](_order(value, match[2]), 0) for match in comparisons if match)
    return _order(value, condition) == 0


def _order(value: str, other: str) -> int:
    """-1, 0 or 1 for before, equal and after: as numbers where both are whole numbers (06 equals 6), else as text."""
    if all(map(_WHOLE.fullmatch, (value, other))):
        return (int(value) > int(other)) - (int(value) < int(other))
    return (value > other) - (value < other)
