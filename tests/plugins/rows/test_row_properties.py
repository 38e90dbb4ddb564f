"""The counts of `diff --rows` equal those of a difference of multisets or dictionaries in Python."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from prefect_stagegate.plugins.rows.row_changes import TablePair, TableRowChanges
from prefect_stagegate.plugins.rows.row_comparing import differing_files
from prefect_stagegate.plugins.rows.row_queries import compare_rows
from prefect_stagegate.spec.csv_dialect import TextReading
from prefect_stagegate.validations.queries import duck, relations

COLUMNS = ("n", 'a "quoted", name', "x")
SCHEMA = pa.schema([("n", pa.int64()), (COLUMNS[1], pa.string()), ("x", pa.float64())])
ROW = st.tuples(
    st.one_of(st.none(), st.integers(-2, 2)),
    st.one_of(st.none(), st.sampled_from(["", "a", "ä,'", "null"])),
    st.one_of(st.none(), st.sampled_from([0.5, -1.5, float("inf")])),
)
FILES = st.lists(st.lists(ROW, max_size=4), min_size=1, max_size=4)
KEYED = st.dictionaries(st.tuples(st.integers(0, 9), st.sampled_from("ab")), ROW, max_size=12)


def write(folder: Path, name: str, rows: Sequence[Sequence[Any]], schema: pa.Schema = SCHEMA) -> str:
    columns = [list(values) for values in zip(*rows, strict=True)] or [[] for _ in schema]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), folder / name)
    return str(folder / name)


class HereQueries(duck.Queries):
    """Queries in this process: one of its own for each example would take long."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement).fetchall()

    def relation(self, table: relations.TableFiles, **options: Any) -> str:
        return relations.relation_of(self.connection, table, **options)


def compared(old: Iterable[str], new: Iterable[str], key: Sequence[str] = ()) -> TableRowChanges:
    pair = TablePair("t", ("before", "now"), list(old), list(new), ({}, {}, {}), TextReading(), key)
    with duckdb.connect() as connection:
        return compare_rows(HereQueries(connection), pair)


def rows_of(files: Sequence[Sequence[Any]]) -> Counter[Any]:
    return Counter(row for rows in files for row in rows)


@settings(max_examples=60, deadline=None)
@given(FILES, FILES)
def test_whole_rows_count_as_multisets(old: list[list[Any]], new: list[list[Any]]) -> None:
    """Also though files that both versions have are not read: their rows cancel out."""
    before, now = rows_of(old), rows_of(new)
    chosen = differing_files(*({str(at): repr(rows) for at, rows in enumerate(files)} for files in (old, new)))
    if not any(chosen):
        assert before == now
        return
    with tempfile.TemporaryDirectory() as place:
        before_paths, now_paths = (
            [write(Path(place), f"{side}{at}.parquet", files[int(at)]) for at in of_side]
            for side, files, of_side in zip("on", (old, new), chosen, strict=True)
        )
        changes = compared(before_paths, now_paths)
    assert (changes.added, changes.gone) == ((now - before).total(), (before - now).total())
    assert changes.changed is None


@settings(max_examples=60, deadline=None)
@given(KEYED, KEYED, st.integers(0, 12))
def test_keyed_rows_count_as_dictionaries(old: dict[Any, Any], new: dict[Any, Any], cut: int) -> None:
    schema = pa.schema([("id", pa.int64()), ("letter", pa.string()), *SCHEMA])
    with tempfile.TemporaryDirectory() as place:
        paths = []
        for side, rows in (("o", old), ("n", new)):
            flat = [(*key, *row) for key, row in rows.items()]
            parts = (flat[:cut], flat[cut:])
            paths.append([write(Path(place), f"{side}{at}.parquet", part, schema) for at, part in enumerate(parts)])
        changes = compared(paths[0], paths[1], ["LETTER", "id"])
    both = [(old[key], new[key]) for key in old.keys() & new.keys()]
    counts = (len(new.keys() - old.keys()), len(old.keys() - new.keys()), sum(a != b for a, b in both))
    assert (changes.added, changes.gone, changes.changed) == counts
    by_column = Counter(name for a, b in both for name, before, now in zip(COLUMNS, a, b, strict=True) if before != now)
    assert changes.columns == by_column
    assert changes.rows == (len(old), len(new))
