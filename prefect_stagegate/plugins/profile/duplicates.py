"""Rows that occur twice in a table, and records that several splits of a dataset share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect_stagegate.errors import ValidationError
from prefect_stagegate.model.measures import Duplicates, Overlap
from prefect_stagegate.quoting import identifier
from prefect_stagegate.validations.queries.duck import Queries
from prefect_stagegate.validations.queries.relations import FILE, TableFiles

MOST_SPLITS = 16


def duplicates(queries: Queries, table: TableFiles, keys: Sequence[str]) -> Duplicates:
    """Count the rows that share their key with another, in one pass that spills what doesn't fit into memory.

    Args:
        queries: An open database.
        table: The table's files.
        keys: At least one column.
    """
    if not table.files:
        return Duplicates(0, 0)
    rows = queries.relation(table, filename=FILE)
    by = _columns(keys)
    ((rows_in_groups, surplus, *places),) = queries.rows(
        "SELECT coalesce(sum(n), 0), coalesce(sum(n - 1), 0), min(first) FILTER (n > 1), max(last) FILTER (n > 1) "  # noqa: S608 - names are quoted
        f"FROM (SELECT count(*) AS n, min({FILE}) AS first, max({FILE}) AS last FROM ({rows}) GROUP BY {by})"
    )
    files = (str(Path(file).relative_to(table.view)) for file in places if file is not None)
    return Duplicates(int(rows_in_groups), int(surplus), tuple(dict.fromkeys(files)))


def is_key(queries: Queries, table: TableFiles, column: str) -> bool:
    """Whether each row has a value of its own in a column without nulls. One of forty with a billion keys is missed.

    Different hashes prove different values, and take less room than text.
    """
    rows = queries.relation(table)
    ((total, different),) = queries.rows(f"SELECT count(*), count(DISTINCT hash({identifier(column)})) FROM ({rows})")  # noqa: S608 - names are quoted
    return bool(total == different)


def shared_records(queries: Queries, splits: Mapping[str, TableFiles], by: Sequence[str]) -> Overlap:
    """Count the records of each split, and those of each combination of splits.

    Args:
        queries: An open database.
        splits: The files of each split; 2 to `MOST_SPLITS` splits.
        by: The columns that make a record, at least one.
    """
    names = list(splits)
    if len(names) > MOST_SPLITS:
        raise ValidationError(f"{len(names)} splits can't be compared at once", hint=f"Name at most {MOST_SPLITS}.")
    columns = _columns(by)
    parts = [
        f"SELECT {columns}, {1 << bit} AS split FROM ({queries.relation(splits[name])})"  # noqa: S608
        for bit, name in enumerate(names)
        if splits[name].files
    ]
    if not parts:
        return overlap(names, {})
    records = f"SELECT bit_or(split) AS held FROM ({' UNION ALL '.join(parts)}) GROUP BY {columns}"  # noqa: S608
    return overlap(names, dict(queries.rows(f"SELECT held, count(*) FROM ({records}) GROUP BY held")))  # noqa: S608


def overlap(names: Sequence[str], counted: Mapping[int, int]) -> Overlap:
    """Turn counts by bit mask into counts by split; bit N of a mask stands for `names[N]`.

    >>> overlap(["train", "test"], {1: 7, 2: 3, 3: 2})
    Overlap(counts={'train': 9, 'test': 5}, shared={('train', 'test'): 2})
    """
    combined = {tuple(name for bit, name in enumerate(names) if held >> bit & 1): n for held, n in counted.items()}
    counts = {name: sum(n for held, n in combined.items() if name in held) for name in names}
    return Overlap(counts, {held: n for held, n in sorted(combined.items()) if len(held) > 1})


def _columns(names: Sequence[str]) -> str:
    return ", ".join(identifier(name) for name in names)
