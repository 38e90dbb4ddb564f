"""Compares the rows of one table's files by DuckDB: exactly, by whole rows or by a key.

Values of the data never become SQL, and names of columns are replaced by numbers before they meet a query of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.rows.row_changes import Kind, RowSample, TablePair, TableRowChanges
from prefect_stagegate.quoting import identifier, literal
from prefect_stagegate.units import count_text, listed
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.queries.duck import Queries
from prefect_stagegate.validations.queries.relations import FILE, TableFiles
from prefect_stagegate.validations.worker.values import MASKED, NULL, short

SAMPLES = 5
"""Rows of each kind that are shown."""
SAMPLED_COLUMNS = 20
"""Columns of such a row."""
LONGEST_VALUE = 40
"""Characters of a value that are shown."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns that are compared. Queries call them `c0`, `c1` and so on."""

    names: Sequence[str]
    key: Sequence[int]
    """Positions of the key's columns; empty where whole rows are compared."""
    hidden: frozenset[int]
    """Positions of the columns whose values are masked."""

    @property
    def others(self) -> list[int]:
        """Positions of the columns beside the key."""
        return [position for position in range(len(self.names)) if position not in self.key]

    def texts(self, row: Sequence[str | None], positions: Sequence[int]) -> dict[str, str]:
        """A row's values for people, by column."""
        return {
            self.names[at]: NULL if value is None else MASKED if at in self.hidden else short(value, LONGEST_VALUE)
            for at, value in zip(positions, row, strict=True)
        }


def compare_rows(queries: Queries, pair: TablePair) -> TableRowChanges:
    """Count the rows of a table's files that were added, went or changed.

    Args:
        queries: An empty database, which holds what differs afterwards.
        pair: The files; at least one.

    Raises:
        UsageError: The key is not unique, or has missing values.
        QueryFailed: A file can't be read, columns can't be compared, or memory or scratch space is short.
    """
    joint = TableFiles(Path("/"), [*pair.old, *pair.new], pair.reading, partitions=pair.partitions[2])
    kinds = _columns(queries, queries.relation(joint, filename=FILE))
    columns, notes = _compared(queries, pair, kinds)
    old, new = (
        _side(queries, joint, paths, columns, name) for name, paths in (("rows_old", pair.old), ("rows_new", pair.new))
    )
    for name, side in zip(pair.names, (old, new), strict=True):
        _require_key(queries, pair, name, side, columns)
    rows = (_count(queries, old), _count(queries, new))
    by_column, samples, changed = dict[str, int](), list[RowSample](), 0
    if not (old and new and columns.names):  # nothing to compare with: all rows of one version
        (gone, added), sides = rows, (old, new)
    elif columns.key:
        (added, gone, changed), by_column, samples = _by_key(queries, old, new, columns)
        o, n = (", ".join(f"{side}{at} AS c{at}" for at in range(len(columns.names))) for side in "on")
        sides = (f"SELECT {o} FROM differing WHERE is_gone", f"SELECT {n} FROM differing WHERE is_added")
    else:
        added, gone = _by_rows(queries, old, new, columns)
        sides = ("FROM differing WHERE n < 0", "FROM differing WHERE n > 0")
    samples += [*_samples(queries, sides[0], "gone", columns), *_samples(queries, sides[1], "added", columns)]
    files, key = (len(pair.old), len(pair.new)), tuple(columns.names[at] for at in columns.key)
    counts = (added, gone, changed if key else None)
    return TableRowChanges(pair.table, files, 0, rows, key, *counts, by_column, tuple(notes), tuple(samples))


def _columns(queries: Queries, relation: str) -> dict[str, str]:
    rows = queries.rows(f"DESCRIBE {relation}")
    return {row[0]: row[1] for row in rows if row[0] != FILE}


def _compared(queries: Queries, pair: TablePair, kinds: Mapping[str, str]) -> tuple[_Columns, list[str]]:
    """The columns that both versions have, and what is said of the others and of other types."""
    sides: list[dict[str, tuple[str, str]]] = []
    for paths, partitions in zip((pair.old, pair.new), pair.partitions, strict=False):
        table = TableFiles(Path("/"), paths, pair.reading, partitions=partitions)
        found = _columns(queries, queries.relation(table)) if paths else kinds
        sides.append({name.lower(): (name, kind) for name, kind in found.items()})
    old, new = sides
    folders = {name.lower() for name in pair.partitions[0].keys() ^ pair.partitions[1].keys()}
    joint = {name.lower(): (name, kind) for name, kind in kinds.items()}
    # Both versions have files here, else a column of one alone would be compared with nothing.
    names = [name for name in joint if name in old and name in new and name not in folders]
    notes = [f"column {name}: folders of one version alone name it, so it is not compared" for name in sorted(folders)]
    notes += [f"column {old[name][0]} is gone, so it is not compared" for name in old if name not in new]
    notes += [f"column {new[name][0]} is new, so it is not compared" for name in new if name not in old]
    notes += [
        f"column {joint[name][0]}: {old[name][1].lower()} before, {new[name][1].lower()} now; "
        f"compared as {joint[name][1].lower()}"
        for name in names
        if old[name][1] != new[name][1]
    ]
    key = [name.lower() for name in pair.key]
    missing = [name for name in pair.key if name.lower() not in names]
    if missing:
        notes.append(f"compared by whole rows: {listed(missing)} of the key is no column of both versions")
    personal = {name.lower() for name in pair.personal}
    # A name that no column has may be misspelled: then all values are masked.
    hides_all = bool(personal - {*old, *new})
    return (
        _Columns(
            [joint[name][0] for name in names],
            [] if missing else [names.index(name) for name in key],
            frozenset(at for at, name in enumerate(names) if hides_all or name in personal),
        ),
        notes,
    )


def _side(queries: Queries, joint: TableFiles, paths: Sequence[str], columns: _Columns, name: str) -> str:
    """A query over one version's files, with the types that the values of both have; empty without files.

    Other formats than Parquet are read into the table `name` once: each query would parse them again.
    """
    if not paths:
        return ""
    rows = queries.relation(joint, filename=FILE, only=set(paths))
    names = ", ".join(f"{identifier(column)} AS c{at}" for at, column in enumerate(columns.names)) or "1 AS c0"
    query = f"SELECT {names} FROM ({rows}) WHERE {FILE} IN ({', '.join(map(literal, paths))})"
    if all(form(Path(path)) == "parquet" for path in paths):
        return query
    queries.rows(f"CREATE TEMP TABLE {name} AS {query}")
    return f"SELECT * FROM {name}"


def _require_key(queries: Queries, pair: TablePair, name: str, side: str, columns: _Columns) -> None:
    """Refuse a key by which rows can't be matched: before the join, since one of many equal keys would not end."""
    if not side or not columns.key:
        return
    key = _names("c", columns.key)
    missing = " OR ".join(f"c{at} IS NULL" for at in columns.key)
    groups = f"SELECT {key}, count(*) AS n FROM ({side}) GROUP BY {key}"
    query = f"SELECT sum(n) FILTER (WHERE {missing}), sum(n) FILTER (WHERE n > 1) FROM ({groups})"
    ((nulls, repeated),) = queries.rows(query)
    for count, problem in ((nulls, "has no value"), (repeated, "is not unique")):
        if count:
            raise UsageError(
                f"The key {', '.join(pair.key)} {problem} in {count_text(int(count), 'row')} of table {pair.table} of "
                f"{name}",
                hint="Name further columns by --key, or leave --key out to compare whole rows.",
            )


def _by_rows(queries: Queries, old: str, new: str, columns: _Columns) -> tuple[int, int]:
    """How many rows were added and went: the difference of two multisets, which stays in the table `differing`."""
    both = f"SELECT *, -1 AS side FROM ({old}) UNION ALL SELECT *, 1 FROM ({new})"
    every = _names("c", range(len(columns.names)))
    sums = f"SELECT {every}, sum(side) AS n FROM ({both}) GROUP BY {every}"
    queries.rows(f"CREATE TEMP TABLE differing AS FROM ({sums}) WHERE n <> 0")
    query = "SELECT sum(n) FILTER (WHERE n > 0), -sum(n) FILTER (WHERE n < 0) FROM differing"
    added, gone = (int(count or 0) for count in queries.rows(query)[0])
    return added, gone


def _by_key(
    queries: Queries, old: str, new: str, columns: _Columns
) -> tuple[tuple[int, int, int], dict[str, int], list[RowSample]]:
    """How many rows were added, went and changed, in how many each column changed, and samples of changed ones."""
    every = range(len(columns.names))
    equal = " AND ".join(f"o.c{at} = n.c{at}" for at in columns.key)
    differs = [f"o.c{at} IS DISTINCT FROM n.c{at}" for at in columns.others]
    values = ", ".join(f"{side}.c{at} AS {side}{at}" for side in "on" for at in every)
    query = (
        f"SELECT o.side IS NULL AS is_added, n.side IS NULL AS is_gone, {values} "
        f"FROM (SELECT 1 AS side, * FROM ({old})) AS o FULL JOIN (SELECT 1 AS side, * FROM ({new})) AS n ON {equal} "
        f"WHERE {' OR '.join(['o.side IS NULL', 'n.side IS NULL', *differs])}"
    )
    is_changed = "NOT is_added AND NOT is_gone"
    queries.rows(f"CREATE TEMP TABLE differing AS {query}")
    conditions = [
        *("is_added", "is_gone", is_changed),
        *(f"{is_changed} AND o{at} IS DISTINCT FROM n{at}" for at in columns.others),
    ]
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in conditions)
    (counted,) = queries.rows(f"SELECT {counts} FROM differing")
    added, gone, changed, *of_columns = map(int, counted)
    by_column = {columns.names[at]: count for at, count in zip(columns.others, of_columns, strict=True) if count}
    by_column = dict(sorted(by_column.items(), key=lambda item: -item[1]))
    return (added, gone, changed), by_column, _changed_samples(queries, is_changed, columns)


def _count(queries: Queries, side: str) -> int:
    return int(queries.rows(f"SELECT count(*) FROM ({side})")[0][0]) if side else 0


def _samples(queries: Queries, query: str, kind: Kind, columns: _Columns) -> list[RowSample]:
    """The first rows of a query, whose columns are `c0`, `c1`, …; those of the key first. None for an empty query."""
    shown = [*columns.key, *columns.others][:SAMPLED_COLUMNS]
    if not (query and shown):
        return []
    # A whole version is not sorted for five of its rows.
    order = f" ORDER BY {_names('c', shown)}" if "differing" in query else ""
    query = f"SELECT {_as_text('c', shown)} FROM ({query}){order} LIMIT {SAMPLES}"
    return [RowSample(kind, columns.texts(row, shown)) for row in queries.rows(query)]


def _changed_samples(queries: Queries, condition: str, columns: _Columns) -> list[RowSample]:
    others = columns.others
    flags = ", ".join(f"o{at} IS DISTINCT FROM n{at}" for at in others)
    shown = ", ".join(filter(None, (_as_text("o", columns.key), _as_text("o", others), _as_text("n", others), flags)))
    order = _names("o", columns.key)
    query = f"SELECT {shown} FROM differing WHERE {condition} ORDER BY {order} LIMIT {SAMPLES}"
    samples = []
    for row in map(iter, queries.rows(query)):
        key, before, now, changed = (tuple(islice(row, len(part))) for part in (columns.key, others, others, others))
        texts, texts_now = columns.texts(before, others), columns.texts(now, others)
        names = [columns.names[at] for at, flag in zip(others, changed, strict=True) if flag][:SAMPLED_COLUMNS]
        changes = {name: (texts[name], texts_now[name]) for name in names}
        samples.append(RowSample("changed", columns.texts(key, columns.key), changes))
    return samples


def _names(side: str, positions: Sequence[int] | range) -> str:
    return ", ".join(f"{side}{at}" for at in positions)


def _as_text(side: str, positions: Sequence[int]) -> str:
    # In SQL, since Python has no value for some of DuckDB's; cut, since a value may be large.
    return ", ".join(f"left(CAST({side}{at} AS VARCHAR), {LONGEST_VALUE + 1})" for at in positions)
