"""Tables for DuckDB: the SQL that reads their files, and the readers of those that DuckDB doesn't open itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from prefect_stagegate.quoting import identifier
from prefect_stagegate.spec.csv_dialect import TextReading
from prefect_stagegate.validations.files.arrow import ArrowFiles, by_columns
from prefect_stagegate.validations.files.facts import UnreadableFile
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.files.text_files import schema_of, typed_batches
from prefect_stagegate.validations.queries.sql import PATH, json_columns, relation, stream_name


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
    paths = [table.view / file for file in table.files]
    sources = {}
    try:
        if arrow := [path for path in paths if form(path) == "arrow"]:
            readers = [ArrowFiles(group, schema, PATH) for group, schema in by_columns(arrow)]
            sources["arrow"] = _register(connection, stream_name(arrow), readers)
        if lines := [path for path in paths if form(path) == "json" and not as_text]:
            sources["json"] = json_columns(connection, lines)
        if texts := [path for path in paths if form(path) == "csv"]:
            schema = schema_of(texts, table.reading, as_text=as_text)
            read = partial(typed_batches, schema=schema, csv=table.reading.csv)
            name = stream_name(texts, table.reading, as_text)
            sources["csv"] = _register(connection, name, [ArrowFiles(texts, schema, PATH, read)])
    except (pa.ArrowException, OSError, UnreadableFile) as error:
        raise duckdb.IOException(str(error)) from error
    return relation(
        paths,
        filename=filename,
        as_text=as_text,
        root=table.view,
        partitions=table.partitions,
        sources=sources,
        only=only,
    )


def _register(connection: duckdb.DuckDBPyConnection, name: str, readers: Sequence[object]) -> str:
    """Make a temporary view of streams of Arrow's batches, and return its name."""
    for number, reader in enumerate(readers):
        connection.register(f"{name}_{number}", reader)
    parts = " UNION ALL BY NAME ".join(f"FROM {name}_{number}" for number in range(len(readers)))
    connection.execute(f"CREATE OR REPLACE TEMPORARY VIEW {identifier(name)} AS {parts}")
    return name
