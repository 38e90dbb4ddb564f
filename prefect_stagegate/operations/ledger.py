"""Sorted records of a staging that may be longer than memory: private, temporary SQLite tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Entry, Origin, Pin, PlannedObject, Receipt

BATCH = 512
"""Rows that are written by one statement."""


def _temporary(table: str) -> sqlite3.Connection:
    # An empty name is a database that SQLite keeps in its page cache and spills to an unlinked file.
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute(table)
    return connection


def _insert(database: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Insert all rows by one statement: between two, this thread would wait for the interpreter. Returns how many."""
    if not rows:
        return 0
    marks = ",".join(["(" + ",".join("?" * len(rows[0])) + ")"] * len(rows))
    return database.execute(f"{into} VALUES {marks}", [*chain.from_iterable(rows)]).rowcount


class Paths:
    """The paths that are taken, so that two objects that want the same one are found while listing."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._database = _temporary("CREATE TABLE paths (path TEXT PRIMARY KEY, source INT, key TEXT) WITHOUT ROWID")

    def take(self, batch: Sequence[PlannedObject]) -> None:
        """Take the paths of some objects.

        Raises:
            UsageError: Another object has one of them; both are named.
        """
        rows = [(planned.path, planned.source, planned.object.key) for planned in batch]
        if _insert(self._database, "INSERT OR IGNORE INTO paths", rows) < len(rows):
            self._refuse(rows)

    def _refuse(self, rows: Sequence[tuple[str, int, str]]) -> None:
        """Name the first object whose path was taken before it."""
        find = "SELECT source, key FROM paths WHERE path = ?"
        seen = set()
        for path, source, key in rows:
            holder, other = self._database.execute(find, (path,)).fetchone()
            if path in seen or (holder, other) != (source, key):
                raise UsageError(
                    f"Two objects want the path {path!r}: {other!r} of {self._urls[holder]} "
                    f"and {key!r} of {self._urls[source]}",
                    hint="Give one of the two sources another `into:`, or leave one object out by `exclude:`.",
                    object=path,
                )
            seen.add(path)


class Ledger:
    """The receipts of one staging, given back in the order of their paths."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._new: list[tuple[object, ...]] = []
        self._database = _temporary(
            "CREATE TABLE receipts (path TEXT PRIMARY KEY, size INT, digest TEXT, source INT, key TEXT, pin_kind TEXT, "
            "pin_value TEXT, pin_strength TEXT, modified REAL, proof TEXT) WITHOUT ROWID"
        )
        self.fetched = 0
        """Bytes that came over the wire."""
        self.reused = 0
        """Bytes that the cache had."""

    def add(self, receipt: Receipt) -> None:
        """Add a receipt."""
        listed, pin = receipt.object, receipt.object.pin
        pinned = (pin.kind, pin.value, pin.strength, listed.modified)
        row = (receipt.path, listed.size, receipt.digest, receipt.source, listed.key, *pinned, receipt.proof)
        self._new.append(row)
        if len(self._new) >= BATCH:
            self._flush()
        self.fetched += receipt.fetched
        self.reused += max(0, listed.size - receipt.fetched)

    def entries(self) -> Iterator[Entry]:
        """The manifest's rows."""
        self._flush()
        return (Entry(*row) for row in self._database.execute("SELECT path, size, digest FROM receipts ORDER BY path"))

    def origins(self) -> Iterator[Origin]:
        """Where each entry came from."""
        self._flush()
        for row in self._database.execute("SELECT * FROM receipts ORDER BY path"):
            path, size, digest, source, key, kind, value, strength, modified, proof = row
            yield Origin(
                path, self._urls[source], key, size, Pin(kind, value, strength), proof, digest, modified, source
            )

    def _flush(self) -> None:
        _insert(self._database, "INSERT INTO receipts", self._new)
        self._new.clear()
