"""Sorted records of a staging that may be longer than memory: private, temporary SQLite tables."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Entry, Origin, Pin, PlannedObject, Receipt


def _temporary(table: str) -> sqlite3.Connection:
    # An empty name is a database that SQLite keeps in its page cache and spills to an unlinked file.
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute(table)
    return connection


class Paths:
    """The paths that are taken, so that two objects that want the same one are found while listing."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._database = _temporary("CREATE TABLE paths (path TEXT PRIMARY KEY, source INT, key TEXT) WITHOUT ROWID")

    def take(self, planned: PlannedObject) -> None:
        """Take an object's path.

        Raises:
            UsageError: Another object has it; both are named.
        """
        key = planned.object.key
        row = (planned.path, planned.source, key)
        if self._database.execute("INSERT OR IGNORE INTO paths VALUES (?, ?, ?)", row).rowcount:
            return
        find = "SELECT source, key FROM paths WHERE path = ?"
        source, other = self._database.execute(find, (planned.path,)).fetchone()
        raise UsageError(
            f"Two objects want the path {planned.path!r}: {other!r} of {self._urls[source]} "
            f"and {key!r} of {self._urls[planned.source]}",
            hint="Give one of the two sources another `into:`, or leave one object out by `exclude:`.",
            object=planned.path,
        )


class Ledger:
    """The receipts of one staging, given back in the order of their paths."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._lock = threading.Lock()
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
        with self._lock:
            self._database.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.fetched += receipt.fetched
        self.reused += max(0, listed.size - receipt.fetched)

    def entries(self) -> Iterator[Entry]:
        """The manifest's rows."""
        return (Entry(*row) for row in self._database.execute("SELECT path, size, digest FROM receipts ORDER BY path"))

    def origins(self) -> Iterator[Origin]:
        """Where each entry came from."""
        for row in self._database.execute("SELECT * FROM receipts ORDER BY path"):
            path, size, digest, source, key, kind, value, strength, modified, proof = row
            yield Origin(
                path, self._urls[source], key, size, Pin(kind, value, strength), proof, digest, modified, source
            )
