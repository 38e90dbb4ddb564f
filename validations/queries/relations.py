"""Tables for DuckDB: the SQL that reads their files, and the readers of those that DuckDB can't open itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from prefect_stagegate.quoting import identifier
from prefect_stagegate.validations.files.arrow import ArrowFiles, by_columns
from prefect_stagegate.validations.queries.sql import PATH, arrow_name, form, relation


def relation_of(
    connection: duckdb.DuckDBPyConnection,
    view: Path,
    files: Sequence[str],
    *,
    filename: str = "",
    as_text: bool = False,
    partitions: Mapping[str, str] | None = None,
    only: Collection[str] = (),
) -> str:
    """A query over a table, which this connection can run: its columns by name, then its partition columns.

    Args:
        connection: Where the query will run. The readers of Arrow's files are known to this connection only.
        view: The version's folder.
        files: At least one file of the table, in any mix of formats.
        filename: The name of a column to add, which holds each row's file.
        as_text: Read all values of text files as text, numbers too.
        partitions: The partition columns with their types, where `files` are not all files of the table.
        only: With `filename`, the Parquet files to read; the columns are those of all. By default all are read.

    Raises:
        duckdb.Error: An Arrow file can't be opened.
    """
    paths = [view / file for file in files]
    if arrow := [path for path in paths if form(path) == "arrow"]:
        _register(connection, arrow)
    return relation(paths, filename=filename, as_text=as_text, root=view, partitions=partitions, only=only)


def _register(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
    """Make a temporary view of Arrow's files, which DuckDB reads through pyarrow, batch by batch."""
    name = arrow_name(paths)
    try:
        groups = by_columns(paths)
    except (pa.ArrowException, OSError) as error:
        raise duckdb.IOException(str(error)) from error
    for number, (group, schema) in enumerate(groups):
        connection.register(f"{name}_{number}", ArrowFiles(group, schema, PATH))
    parts = " UNION ALL BY NAME ".join(f"FROM {name}_{number}" for number in range(len(groups)))
    connection.execute(f"CREATE OR REPLACE TEMPORARY VIEW {identifier(name)} AS {parts}")
