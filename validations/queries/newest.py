"""How fresh a table is: the newest value in its `time` column."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from prefect_stagegate.model import Entry
from prefect_stagegate.patterns import matcher
from prefect_stagegate.quoting import identifier
from prefect_stagegate.spec import TableSpec
from prefect_stagegate.validations.queries.duck import queries
from prefect_stagegate.validations.queries.relations import TableFiles


def newest_time(view: Path, entries: Iterable[Entry], table: TableSpec, cancel: Event | None = None) -> datetime | None:
    """The newest value of the table's `time` column as an aware time; values without a zone count as UTC.

    Args:
        view: The version's folder.
        entries: The version's entries.
        table: The table, which names a `time` column.
        cancel: Set it to stop.

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
    with queries(f"the time column {table.time!r}", view, cancel=cancel) as database:
        rows = database.relation(TableFiles(view, files, table.reading))
        (kind,) = database.columns(f"SELECT {column} FROM ({rows})").values()  # noqa: S608 - names are quoted
        # Cast text only: to cast a time with a zone, DuckDB would need its calendar extension.
        moment = f"CAST({column} AS TIMESTAMP)" if kind == "VARCHAR" else column
        ((newest,),) = database.rows(f"SELECT epoch_ms(max({moment})) FROM ({rows})")  # noqa: S608
    return None if newest is None else datetime.fromtimestamp(newest / 1000, UTC)
