"""DuckDB's SQL for reading a table's files, with every name quoted."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from prefect_stagegate.quoting import identifier, literal
from prefect_stagegate.validations.columntypes import whole_numbers
from prefect_stagegate.validations.files.text_values import INSTANT, MOMENT, PATTERNS
from prefect_stagegate.validations.partitions import NULL, lowered

FILE = "stagegate_file"
"""The column by which queries name each row's file."""
PATH = "stagegate_path"
"""The column of each row's file where no query asks for it by another name."""
ISO_TIMES = {"TIMESTAMP": PATTERNS[MOMENT], "TIMESTAMPTZ": PATTERNS[INSTANT]}
"""How ISO 8601 writes the values of DuckDB's types of times."""
MOST_KEYS = 1_000
"""Keys of JSON objects that become columns, however few objects have them; more of them make a map."""


def texts(values: Iterable[str]) -> str:
    """Quote a list of strings."""
    return "[" + ", ".join(literal(value) for value in values) + "]"


def _names(paths: Sequence[Path]) -> str:
    # DuckDB takes every name for a pattern, so a bracket or star in one is escaped.
    return texts(glob.escape(str(path)) for path in paths)


def read_parquet(paths: Sequence[Path], *, filename: str = "") -> str:
    """A relation over Parquet files."""
    return f"read_parquet({_names(paths)}, union_by_name=true, hive_partitioning=false{_filename(filename)})"


def read_json(paths: Sequence[Path], *, filename: str = "") -> str:
    """A relation over files with one JSON object a line. DuckDB infers types from all rows; times are text.

    `json_columns` turns texts into times: DuckDB itself would take 04-01-2026 for a day of January.
    """
    return (
        f"read_json({_names(paths)}, format='newline_delimited', records=true, sample_size=-1, dateformat='%Y-%m-%d', "
        f"timestampformat='none', field_appearance_threshold=0, map_inference_threshold={MOST_KEYS}, "
        f"union_by_name=true, hive_partitioning=false{_filename(filename)})"
    )


def json_columns(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> str:
    """The columns of JSON lines in SQL: those whose texts are all times of ISO 8601 as times. Reads all rows.

    Raises:
        duckdb.Error: A file can't be read.
    """
    rows = connection.sql(f"SELECT * FROM {read_json(paths)}")  # noqa: S608 - names are quoted
    texts = [identifier(name) for name, kind in zip(rows.columns, rows.types, strict=True) if kind == "VARCHAR"]
    if not texts:
        return "*"
    fits = (
        f"bool_and(TRY_CAST({name} AS {kind}) IS NOT NULL AND regexp_full_match({name}, {literal(pattern)}))"
        f" FILTER ({name} IS NOT NULL)"
        for name in texts
        for kind, pattern in ISO_TIMES.items()
    )
    results = iter(rows.aggregate(", ".join(fits)).fetchall()[0])
    kinds = {name: next((kind for kind, fit in [(k, next(results)) for k in ISO_TIMES] if fit), "") for name in texts}
    casts = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in kinds.items() if kind)
    return f"* REPLACE ({casts})" if casts else "*"


def json_schema(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> pa.Schema:
    """The columns of JSON lines with the types of all of their values; raises as `json_columns`."""
    rows = connection.sql(f"SELECT {json_columns(connection, paths)} FROM {read_json(paths)}")  # noqa: S608 - names are quoted
    return whole_numbers(rows.limit(0).to_arrow_table().schema)


def _filename(column: str) -> str:
    return f", filename={literal(column)}" if column else ""


def partitioned(rows: str, types: Mapping[str, str], filename: str, *, keep: bool) -> str:
    """Add the partition columns to a query, from the column that holds each row's file."""
    hidden = lowered([*types, *([] if keep else [filename])])
    columns = f"COLUMNS(lambda c: lower(c) NOT IN ({', '.join(literal(name) for name in sorted(hidden))}))"
    values = (f"{_partition(name, kind, filename)} AS {identifier(name)}" for name, kind in types.items())
    return f"SELECT {columns}, {', '.join(values)} FROM ({rows})"  # noqa: S608 - names are quoted


def _partition(name: str, kind: str, filename: str) -> str:
    # The greedy start takes the innermost folder. Keys are plain words, so the pattern needs no escapes.
    text = f"regexp_extract({identifier(filename)}, {literal(f'(?s).*/{name}=([^/]*)/')}, 1)"
    return f"CAST(url_decode(nullif({text}, {literal(NULL)})) AS {kind})"
