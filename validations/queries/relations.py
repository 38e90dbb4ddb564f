"""Relations over a table's files for DuckDB: SQL reads Parquet and JSON, Arrow readers read the other formats.

Every name in the SQL is quoted.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import duckdb
import pyarrow as pa

from prefect_stagegate.quoting import identifier, literal
from prefect_stagegate.spec.csv_dialect import TextReading
from prefect_stagegate.validations.columntypes import whole_numbers
from prefect_stagegate.validations.files.arrow import ArrowFiles, by_columns
from prefect_stagegate.validations.files.facts import UnreadableFile
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.files.text_files import schema_of, typed_batches
from prefect_stagegate.validations.files.text_values import INSTANT, MOMENT, PATTERNS
from prefect_stagegate.validations.partition_columns import NULL, lowered, partition_types

FILE = "stagegate_file"
"""The column by which queries name each row's file."""
PATH = "stagegate_path"
"""The column of each row's file where no query asks for it by another name."""
ISO_TIMES = {"TIMESTAMP": PATTERNS[MOMENT], "TIMESTAMPTZ": PATTERNS[INSTANT]}
"""How ISO 8601 writes the values of DuckDB's types of times."""
MOST_KEYS = 1_000
"""Keys of JSON objects that become columns, however few objects have them; more of them make a map."""

_STREAMS = count()
"""Numbers the readers that connections know."""


@dataclass(frozen=True, slots=True)
class TableFiles:
    """A table's files, or some of them, with what decides how they are read."""

    view: Path
    """The version's folder."""
    files: Sequence[str]
    """Paths in the version, in any mix of formats."""
    reading: TextReading
    """How text files are read."""
    partitions: Mapping[str, str] | None = None
    """The partition columns with their types, where `files` are not all files of the table."""


def relation_of(
    connection: duckdb.DuckDBPyConnection,
    table: TableFiles,
    *,
    filename: str = "",
    as_text: bool = False,
    only: Collection[str] = (),
) -> str:
    """A query over a table, which this connection can run: its columns by name, then its partition columns.

    Args:
        connection: Where the query will run. The readers of Arrow's and CSV's files are known to this connection only.
        table: At least one file.
        filename: The name of a column to add, which holds each row's file.
        as_text: Read all values of text files as text, numbers too.
        only: With `filename`, the files to read; the columns and types are those of all. By default all are read, and
            JSON is in any case.

    Raises:
        duckdb.Error: An Arrow or CSV file can't be read.
    """
    types = partition_types(table.files) if table.partitions is None else table.partitions
    name = filename or (PATH if types else "")
    groups: dict[str, list[Path]] = {}
    for file in table.files:
        groups.setdefault(form(path := table.view / file), []).append(path)
    try:
        parts = [_part(connection, group, table.reading, name, only, as_text=as_text) for group in groups.values()]
    except (pa.ArrowException, OSError, UnreadableFile) as error:
        raise duckdb.IOException(str(error)) from error
    rows = " UNION ALL BY NAME ".join(parts)
    return partitioned(rows, types, name, keep=bool(filename)) if types else rows


def _part(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path],
    reading: TextReading,
    filename: str,
    only: Collection[str],
    *,
    as_text: bool,
) -> str:
    """A query over files of one format; raises as their readers do."""
    kind = form(paths[0])
    if kind == "parquet":
        chosen = f" WHERE {identifier(filename)} IN ({', '.join(map(literal, only))})" if only else ""
        # OFFSET keeps the conditions of outer queries from the reader, which would leave out row groups by their
        # statistics. Those are the word of whoever wrote the file, and say nothing of NaN.
        return f"(SELECT * FROM {read_parquet(paths, filename=filename)}{chosen} OFFSET 0)"  # noqa: S608 - quoted
    if kind == "json":
        columns = "CAST(COLUMNS(*) AS VARCHAR)" if as_text else json_columns(connection, paths)
        return f"SELECT {columns} FROM {read_json(paths, filename=filename)}"  # noqa: S608 - names are quoted
    if kind == "arrow":
        readers = [ArrowFiles(_chosen(group, only), schema, PATH) for group, schema in by_columns(paths)]
    else:
        schema = schema_of(paths, reading, as_text=as_text)
        readers = [
            ArrowFiles(_chosen(paths, only), schema, PATH, partial(typed_batches, schema=schema, csv=reading.csv))
        ]
    stream = f"stagegate_stream_{next(_STREAMS)}"
    for number, reader in enumerate(readers):
        connection.register(f"{stream}_{number}", reader)
    streams = " UNION ALL BY NAME ".join(f"FROM {stream}_{number}" for number in range(len(readers)))
    connection.execute(f"CREATE TEMPORARY VIEW {stream} AS {streams}")
    columns = f"* EXCLUDE ({PATH})" + (f", {PATH} AS {identifier(filename)}" if filename else "")
    return f"SELECT {columns} FROM {stream}"  # noqa: S608 - names are quoted


def _chosen(paths: Sequence[Path], only: Collection[str]) -> Sequence[Path]:
    return [path for path in paths if str(path) in only] if only else paths


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
    columns = [identifier(name) for name, kind in zip(rows.columns, rows.types, strict=True) if kind == "VARCHAR"]
    if not columns:
        return "*"
    fits = (
        f"bool_and(TRY_CAST({name} AS {kind}) IS NOT NULL AND regexp_full_match({name}, {literal(pattern)}))"
        f" FILTER ({name} IS NOT NULL)"
        for name in columns
        for kind, pattern in ISO_TIMES.items()
    )
    results = iter(rows.aggregate(", ".join(fits)).fetchall()[0])
    kinds = {name: next((kind for kind, fit in [(k, next(results)) for k in ISO_TIMES] if fit), "") for name in columns}
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
