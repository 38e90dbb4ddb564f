"""Folders named `key=value`, as Hive, Spark and most lakes lay out their partitions.

Pure: no I/O.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

from prefect_stagegate.spec.selection import COMPARISON

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def partitions_of(key: str) -> dict[str, str]:
    """The partition values that an object's folders name, percent-decoded as they are written.

    >>> partitions_of("year=2013/day=06%2F01/part-0.parquet")
    {'year': '2013', 'day': '06/01'}
    """
    folders = (folder.partition("=") for folder in key.split("/")[:-1] if "=" in folder)
    return {unquote(name): unquote(value) for name, _, value in folders}


def in_partitions(key: str, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether an object lies in wanted partitions: of each key, one condition must hold.

    A folder's key, which ends with a slash, is judged by the partitions that it names so far.

    >>> in_partitions("year=2013/a.csv", {"year": [">=2012,<2014"]}), in_partitions("a.csv", {"year": ["2013"]})
    (True, False)
    """
    if not wanted:
        return True
    found, folder = partitions_of(key), key.endswith("/")
    return all(
        any(_holds(found[name], one) for one in conditions) if name in found else folder
        for name, conditions in wanted.items()
    )


def _holds(value: str, condition: str) -> bool:
    comparisons = [COMPARISON.fullmatch(part) for part in condition.split(",")]
    if all(comparisons):
        return all(_COMPARE[one[1]](_order(value, one[2]), 0) for one in comparisons if one)
    return _order(value, condition) == 0


def _order(value: str, other: str) -> int:
    """-1, 0 or 1 for before, same and after: as numbers where both are whole ones, so that 06 is 6; else as texts."""
    if all(map(_WHOLE.fullmatch, (value, other))):
        return (int(value) > int(other)) - (int(value) < int(other))
    return (value > other) - (value < other)
