"""Tables for DuckDB: the SQL that reads their files, and the readers of those that DuckDB doesn't open itself."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from prefect_stagegate.quoting import identifier, literal
from prefect_stagegate.spec.csv_dialect import TextReading
from prefect_stagegate.validations.files.arrow import ArrowFiles, by_columns
from prefect_stagegate.validations.files.facts import UnreadableFile
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.files.text_files import schema_of, typed_batches
from prefect_stagegate.validations.partitions import partition_types
from prefect_stagegate.validations.queries.sql import PATH, json_columns, partitioned, read_json, read_parquet


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
        only: With `filename`, the Parquet files to read; the columns are those of all. By default all are read.

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
        readers = [ArrowFiles(group, schema, PATH) for group, schema in by_columns(paths)]
    else:
        schema = schema_of(paths, reading, as_text=as_text)
        readers = [ArrowFiles(paths, schema, PATH, partial(typed_batches, schema=schema, csv=reading.csv))]
    key = "\0".join([*map(str, paths), repr(reading), str(as_text)])
    stream = "stagegate_stream_" + hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16]
    for number, reader in enumerate(readers):
        connection.register(f"{stream}_{number}", reader)
    streams = " UNION ALL BY NAME ".join(f"FROM {stream}_{number}" for number in range(len(readers)))
    connection.execute(f"CREATE OR REPLACE TEMPORARY VIEW {stream} AS {streams}")
    columns = f"* EXCLUDE ({PATH})" + (f", {PATH} AS {identifier(filename)}" if filename else "")
    return f"SELECT {columns} FROM {stream}"  # noqa: S608 - names are quoted
