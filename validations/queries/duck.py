"""DuckDB for queries over a version's files: bounded in memory and time, and locked to given folders."""

from __future__ import annotations

import glob
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Any

import duckdb
from pydantic import TypeAdapter

from prefect_stagegate.errors import Cancelled, ValidationError, WorkerCrashed
from prefect_stagegate.validations.files.formats import is_text
from prefect_stagegate.validations.queries.query_server import QueryReader
from prefect_stagegate.validations.queries.relations import TableFiles, texts
from prefect_stagegate.validations.worker.process_limits import ValidationLimits

THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Cores that DuckDB uses, at most those that the process may use."""
MEMORY_MIB = max(512, 128 * THREADS)
"""MiB that DuckDB may hold in memory; it spills more to a scratch folder."""
MOST_ANSWER = 64 << 20
"""Bytes of the answer to one query."""
BOUNDS = ValidationLimits(3600.0, MEMORY_MIB << 20, 1 << 40, None)
"""Of all queries in one `queries` block: seconds, bytes that DuckDB may hold in memory, bytes that it may spill."""
INTEGERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)
FLOATS = ("FLOAT", "DOUBLE")
NUMBERS = (*INTEGERS, *FLOATS, "DECIMAL")
"""DuckDB's names of types."""
TABLE = TypeAdapter(TableFiles)
LAST_OUTPUT = 2000
"""Bytes of a process's standard error that are logged."""
_LOOKS = 0.2
"""Seconds between two looks at whether a query is to end."""
REFUSED = (
    "autoinstall_known_extensions",
    "autoload_known_extensions",
    "allow_community_extensions",
    "allow_persistent_secrets",
    "python_enable_replacements",
    "enable_external_access",
)
"""Settings that are switched off: they let a query reach extensions, secrets, Python variables and addresses."""

log = logging.getLogger(__name__)


def lock(connection: duckdb.DuckDBPyConnection, folders: Iterable[str | Path]) -> None:
    """Let a database open only what lies below `folders`, and read times in UTC. No later statement can undo it."""
    # DuckDB compares a pattern as it is written with this list, so the escaped name must be in it beside the plain one.
    allowed = dict.fromkeys(name for folder in folders for name in (str(folder), glob.escape(str(folder))))
    connection.execute(f"SET allowed_directories = {texts(allowed)}")
    for setting in REFUSED:
        connection.execute(f"SET {setting} = false")
    # It answers conditions from the statistics in Parquet's footers, which whoever wrote the file may have made up.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    # By default it is the node's zone, which would make a verdict depend on the node.
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    # Last, since no setting can be changed after it.
    connection.execute("SET lock_configuration = true")


@contextmanager
def locked(folders: Iterable[str | Path], **config: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory database for the block that reads only what lies below `folders`."""
    with duckdb.connect(config=config) as connection:
        lock(connection, folders)
        yield connection


@contextmanager
def bounded(*folders: Path, **config: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """The same in bounded memory; what does not fit lies in a scratch folder, which is removed after the block."""
    with tempfile.TemporaryDirectory(prefix="stagegate-") as scratch:
        config |= {"memory_limit": f"{MEMORY_MIB}MiB", "temp_directory": scratch, "threads": THREADS}
        with locked(folders, **config) as connection:
            yield connection


class QueryFailed(ValidationError):
    """DuckDB can't run a query, or read a file for it."""

    reason = ""
    """DuckDB's type and message, which may quote a value."""


@dataclass
class Queries:
    """A database without tables in a confined process, which reads files of strangers; see `query_process`."""

    reader: QueryReader
    stderr: IO[bytes]
    about: str
    """The subject of the queries, for errors."""
    discreet: bool = False
    """Leave DuckDB's message out of errors, since it may quote a value."""
    stopped: str = ""
    """Why the watcher interrupted the query: `cancelled` or `late`; empty while it runs."""

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a query and fetch all its rows, which must be few.

        Raises:
            QueryFailed: A file or column can't be read, or there is too little memory or scratch space.
            WorkerCrashed: The process died, or took too long.
            Cancelled: The cancel event was set.
        """
        return [tuple(row) for row in self._answer(statement=statement)]

    def send(self, **request: Any) -> None:
        """Send the process a line."""
        self.reader.send(json.dumps(request).encode())

    def _answer(self, **request: Any) -> Any:
        self.send(**request)
        line = self.reader.read(MOST_ANSWER)
        if self.stopped == "cancelled":
            raise Cancelled(f"The query about {self.about} was stopped")
        # A process that a file took over may write anything.
        with suppress(ValueError, TypeError, LookupError, RecursionError):
            reply = json.loads(line)
            if "answer" in reply:
                return reply["answer"]
            kind, message = map(str, reply["error"])
            failed = QueryFailed(
                f"{self.about} can't be queried: {kind if self.discreet else message.splitlines()[0]}",
                hint="Check the names of tables and columns in the spec, and `stagegate validate`.",
            )
            failed.reason = f"{kind}: {message}"
            raise failed
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - LAST_OUTPUT))
        output = self.stderr.read().decode(errors="replace")
        log.debug("The last output of the process that queries %s:\n%s", self.about, output)
        what = "took too long" if self.stopped else "died"
        hint = "It says nothing about the data. `--debug` shows its last output."
        raise WorkerCrashed(f"The process that queries {self.about} {what}", hint=hint)

    def relation(
        self, table: TableFiles, *, filename: str = "", as_text: bool = False, only: Iterable[str] = ()
    ) -> str:
        """A query over a table's files, as `relations.relation_of` makes it.

        Raises:
            QueryFailed: An Arrow or CSV file can't be read.
        """
        values = TABLE.dump_python(table, mode="json")
        return str(self._answer(table=values, filename=filename, as_text=as_text, only=list(only)))

    def columns(self, relation: str) -> dict[str, str]:
        """The columns of a query, each with DuckDB's name of its type."""
        return {row[0]: row[1] for row in self.rows(f"DESCRIBE {relation}")}


@contextmanager
def queries(
    about: str,
    *folders: Path,
    cancel: Event | None = None,
    discreet: bool = False,
    bounds: ValidationLimits = BOUNDS,
) -> Iterator[Queries]:
    """Open a database for the block, with a thread that ends late or cancelled queries.

    Args:
        about: The subject of the queries, for errors.
        folders: The versions' folders; no file elsewhere can be read.
        cancel: Set it to stop the running query.
        discreet: Leave DuckDB's message out of errors.
        bounds: What the queries may take, and where they spill.
    """
    # DuckDB has no time limit of its own, so a thread kills its process.
    done = Event()
    with (
        tempfile.TemporaryDirectory(prefix="stagegate-", dir=bounds.scratch) as scratch,
        tempfile.TemporaryFile() as stderr,
        closing(QueryReader(stderr, bounds.seconds)) as reader,
    ):
        database = Queries(reader, stderr, about, discreet)
        watcher = threading.Thread(target=_watch, args=(database, done, cancel, bounds.seconds), daemon=True)
        watcher.start()
        try:
            views = list(map(str, folders))
            database.send(scratch=scratch, views=views, memory=bounds.memory, spill=bounds.spill)
            yield database
        finally:
            done.set()
            watcher.join()


def _watch(database: Queries, done: Event, cancel: Event | None, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done.wait(_LOOKS):
        if cancel and cancel.is_set():
            database.stopped = "cancelled"
        elif time.monotonic() > deadline:
            database.stopped = "late"
        if database.stopped:
            return database.reader.end()
    return None


def column_types(database: Queries, table: TableFiles) -> dict[str, str]:
    """The columns of all files of a table, each with DuckDB's name of its type.

    Numbers in text files have no width, so their type is `number`, with fractions or without.

    Args:
        database: An open database.
        table: The table's files.
    """
    if not table.files:
        return {}
    text = any(is_text(path) for path in table.files)
    kinds = database.columns(database.relation(table))
    return {name: "number" if text and kind.partition("(")[0] in NUMBERS else kind for name, kind in kinds.items()}
