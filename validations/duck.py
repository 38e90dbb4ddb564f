"""DuckDB for queries over a version's files: bounded in memory and time, and locked to the folders that it is given."""

from __future__ import annotations

import glob
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import duckdb

from prefect_stagegate.errors import Cancelled, ValidationError
from prefect_stagegate.validations.sql import texts

THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Cores that DuckDB works with: of those that the process may use."""
MEMORY_MIB = max(512, 128 * THREADS)
"""What DuckDB may hold in memory; what needs more is spilled to a scratch folder."""
TIMEOUT = 3600.0
"""Seconds that the queries of one question may take."""
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
"""Settings that reach beyond the folders: extensions, stored secrets, Python's variables, files and addresses."""


def lock(connection: duckdb.DuckDBPyConnection, folders: Iterable[str | Path]) -> None:
    """Leave a database nothing to open but what lies below `folders`; no statement can change that any more."""
    # A file's name is escaped where it stands for a pattern, and allowed by the name that it is asked by.
    allowed = dict.fromkeys(name for folder in folders for name in (str(folder), glob.escape(str(folder))))
    connection.execute(f"SET allowed_directories = {texts(allowed)}")
    for setting in REFUSED:
        connection.execute(f"SET {setting} = false")
    connection.execute("SET lock_configuration = true")


@contextmanager
def locked(folders: Iterable[str | Path], **config: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that reads what lies below `folders`, for the time of the block."""
    with duckdb.connect(config=config) as connection:
        lock(connection, folders)
        yield connection


@dataclass
class Queries:
    """A database without tables, which reads files."""

    connection: duckdb.DuckDBPyConnection
    about: str
    """What is asked about, for errors."""
    discreet: bool = False
    """Whether errors keep to themselves what DuckDB says, which may quote a value."""
    stopped: str = ""

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """All rows of an answer, which must be few.

        Raises:
            ValidationError: A file or column can't be read, or there is too little time, memory or scratch space.
            Cancelled: Somebody asked to stop.
        """
        try:
            return self.connection.execute(statement).fetchall()
        except duckdb.InterruptException:
            if self.stopped == "cancelled":
                raise Cancelled(f"The query about {self.about} was stopped") from None
            raise ValidationError(f"The query about {self.about} took more than {TIMEOUT:g} s") from None
        except duckdb.Error as error:
            told = type(error).__name__ if self.discreet else str(error).splitlines()[0]
            raise ValidationError(
                f"{self.about} can't be queried: {told}",
                hint="Check the names of tables and columns in the spec, and `stagegate validate`.",
            ) from (None if self.discreet else error)

    def columns(self, relation: str) -> dict[str, str]:
        """The columns of a query, each with DuckDB's name of its type."""
        return {row[0]: row[1] for row in self.rows(f"DESCRIBE {relation}")}


@contextmanager
def queries(about: str, folder: Path, *, cancel: Event | None = None, discreet: bool = False) -> Iterator[Queries]:
    """Open a database for the time of the block.

    Args:
        about: What is asked about, for errors.
        folder: The version's; no file elsewhere can be read.
        cancel: Set it to stop the query in time.
        discreet: Let no error quote what DuckDB says.
    """
    with tempfile.TemporaryDirectory(prefix="stagegate-") as scratch:
        config: dict[str, Any] = {
            "memory_limit": f"{MEMORY_MIB}MiB",
            "temp_directory": scratch,
            "threads": THREADS,
            "preserve_insertion_order": False,
        }
        done = Event()
        with locked([folder], **config) as connection:
            asked = Queries(connection, about, discreet)
            watcher = threading.Thread(target=_watch, args=(asked, done, cancel), daemon=True)
            watcher.start()
            try:
                yield asked
            finally:
                done.set()
                watcher.join()


def _watch(asked: Queries, done: Event, cancel: Event | None) -> None:
    until = time.monotonic() + TIMEOUT
    while not done.wait(_LOOKS):
        if cancel and cancel.is_set():
            asked.stopped = "cancelled"
        elif time.monotonic() > until:
            asked.stopped = "late"
        if asked.stopped:
            asked.connection.interrupt()
