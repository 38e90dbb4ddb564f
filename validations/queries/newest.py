"""How fresh a table is: the newest value in its `time` column."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from prefect_stagegate.errors import ValidationError
from prefect_stagegate.model import Entry
from prefect_stagegate.patterns import matcher
from prefect_stagegate.quoting import identifier
from prefect_stagegate.spec import TableSpec
from prefect_stagegate.validations.queries.duck import locked
from prefect_stagegate.validations.queries.relations import TableFiles, relation_of


def newest_time(view: Path, entries: Iterable[Entry], table: TableSpec) -> datetime | None:
    """The newest value of the table's `time` column as an aware time; values without a zone count as UTC.

    Args:
        view: The version's folder.
        entries: The version's entries.
        table: The table, which names a `time` column.

    Returns:
        None when no row of the table has a time.

    Raises:
        ValidationError: The column is absent or not a time, or a file can't be read.
    """
    matches = matcher(table.files)
    files = [entry.path for entry in entries if matches(entry.path)]
    if not files or not table.time:
        return None
    column = identifier(table.time)
    try:
        with locked([view]) as connection:
            rows = relation_of(connection, TableFiles(view, files, table.reading))
            (kind,) = connection.sql(f"SELECT {column} FROM ({rows})").types  # noqa: S608 - names are quoted
            # Cast text only: to cast a time with a zone, DuckDB would need its calendar extension.
            moment = f"CAST({column} AS TIMESTAMP)" if kind == "VARCHAR" else column
            row = connection.execute(f"SELECT epoch_ms(max({moment})) FROM ({rows})").fetchone()  # noqa: S608
    except duckdb.Error as error:
        raise ValidationError(
            f"The time column {table.time!r} can't be read: {str(error).splitlines()[0]}",
            hint="Check the table's `time:` and its files.",
        ) from error
    return datetime.fromtimestamp(row[0] / 1000, UTC) if row and row[0] is not None else None
