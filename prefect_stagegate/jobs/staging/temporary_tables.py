"""Temporary SQLite tables, for lists that may not fit in memory."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Sequence
from itertools import chain

BATCH = 512
"""Rows that are written by one statement."""


def temporary(table: str, owner: object = None) -> sqlite3.Connection:
    """Create a table in a database of its own, which is closed when `owner` is collected, or else by the caller."""
    # An empty name is a database that SQLite keeps in its page cache and spills to an unlinked file.
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    # The table ends with its process, so there is nothing to roll back to.
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute(table)
    if owner is not None:
        weakref.finalize(owner, connection.close)
    return connection


def insert(database: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Insert rows and return how many were new."""
    if not rows:
        return 0
    # One statement for all: after each, a thread of a busy transfer waits for the interpreter's lock.
    marks = ",".join(["(" + ",".join("?" * len(rows[0])) + ")"] * len(rows))
    return database.execute(f"{into} VALUES {marks}", [*chain.from_iterable(rows)]).rowcount
