"""The pin memory: which digest a pin is known to name, so that an unchanged object is never read again.

Beside pins it keeps notes, and the counters of what jobs did on this node, which metrics show.

It is the file `index.sqlite`, and disposable: when it is lost or damaged it starts empty, and the next staging reads
the objects again. Its rows never go stale, because a pin names one content. But before a power cut a row may have been
written whose blob never reached the disk, so rows of an earlier boot count only when a sync followed them.

The journal is a rollback journal: SQLite before 3.51.3 could lose a write-ahead log's reset.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from prefect_stagegate.cache.layout import cache_error
from prefect_stagegate.durable import boot_id
from prefect_stagegate.model import Pin, SourceObject

log = logging.getLogger(__name__)

COARSE_SECONDS = 2.0
FINE_SECONDS = 0.05
LOOK_SECONDS = 0.5
"""Seconds between two looks whether other processes write."""
_BUSY_SECONDS = 30.0
LONGEST = 64 << 20
"""Bytes of the longest text or row."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS pins (
    source INTEGER NOT NULL, key TEXT NOT NULL, pin TEXT NOT NULL, size INTEGER NOT NULL,
    digest BLOB NOT NULL, boot TEXT NOT NULL, durable INTEGER NOT NULL,
    PRIMARY KEY (source, key, pin, size)
);
CREATE INDEX IF NOT EXISTS unsynced ON pins (boot) WHERE durable = 0;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (
    name TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (name, labels)
) WITHOUT ROWID;
PRAGMA user_version = 3;
"""
_VERSION = 3
"""2: notes. 3: counters."""
_BATCH = 500
"""Rows of one statement."""
MOST_LABELS = 5_000
"""Combinations of labels that one counter keeps apart; all further ones are counted together."""
MOST_COUNTERS = 20_000
"""Counters that are read: in a cache that a group shares, anybody of it may have added some."""
OTHER = "_other"
"""The value of each label of those; no dataset and no target has such a name."""
_RECALL = """
WITH asked (number, identity, key, pin, size) AS (VALUES {marks})
SELECT number, digest FROM asked CROSS JOIN sources USING (identity)
CROSS JOIN pins ON source = id AND pins.key = asked.key AND pins.pin = asked.pin AND pins.size = asked.size
WHERE durable OR boot = ?
"""
"""One statement for many: after each, a thread of a busy transfer waits for the interpreter's lock. CROSS keeps SQLite
from reading all pins and looking each up among the asked ones."""

_SIZE = """
SELECT size FROM sources JOIN pins ON source = id
WHERE identity = ? AND key = ? AND pin = ? AND (durable OR boot = ?)
"""

_ADD = "UPDATE counters SET value = value + ? WHERE name = ? AND labels = ?"
_ADD_NEW = "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
_SOURCE_ID = "SELECT id FROM sources WHERE identity = ?"
_WRITE = "BEGIN IMMEDIATE"

T = TypeVar("T")
Row = tuple[str, str, Pin, int, str]
"""Source identity, key, pin, size in bytes, `blake3:<hex>`."""
Count = tuple[str, tuple[str, ...], float]
"""A counter's name, the values of its labels, and what is added to it."""


def is_racy(listed: SourceObject, read_at: float) -> bool:
    """Whether a weak pin is so young that a later write may leave it unchanged, as git checks for its index.

    A file system that keeps whole seconds (two on FAT) can't tell apart two writes within them; one that keeps
    fractions can. `read_at` is the time just before the object was read, in seconds since the epoch.
    """
    if listed.pin.strength == "strong":
        return False
    if listed.modified is None:
        # Servers that make etags of the time of change send that, too; else a strong one stands for the bytes.
        return listed.pin.kind != "etag" or listed.pin.value.startswith("W/")
    window = COARSE_SECONDS if float(listed.modified).is_integer() else FINE_SECONDS
    return listed.modified > read_at - window


class PinMemory:
    """The digests that the node knows of pins. Safe to use from many threads and processes.

    Args:
        path: The database's file; made when it is absent or damaged. When even that is impossible (a read-only
            volume) the memory is kept in this process only, and that is logged.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._journal = path, path.with_name(path.name + "-journal")
        self._boot = boot_id()
        self._lock = threading.Lock()
        self._data_version = 0
        self._shared = False
        self._last_look = 0.0
        self._database = self._open()
        # The version of the file now: a later one shows that another process wrote.
        self._transact("BEGIN", self._notice_others)

    @property
    def shared(self) -> bool:
        """Whether other processes have written, too, since this one opened it."""
        if not self._shared and time.monotonic() - self._last_look > LOOK_SECONDS:
            self._last_look = time.monotonic()
            self._transact("BEGIN", self._notice_others)
        return self._shared

    def recall_many(self, objects: Sequence[tuple[str, SourceObject]]) -> list[str | None]:
        """The known digest of each (source identity, object), in the same order; None where it is unknown."""

        def recall(database: sqlite3.Connection) -> list[str | None]:
            digests: list[str | None] = [None] * len(objects)
            for start in range(0, len(objects), _BATCH):
                batch = objects[start : start + _BATCH]
                # The number of each, its identity, key, pin and size.
                rows = [(number, name, at.key, str(at.pin), at.size) for number, (name, at) in enumerate(batch, start)]
                statement = _RECALL.format(marks=",".join(["(?,?,?,?,?)"] * len(batch)))
                for number, digest in database.execute(statement, [*chain.from_iterable(rows), self._boot]):
                    digests[number] = f"blake3:{digest.hex()}"
            return digests

        return self._transact("BEGIN", recall) or [None] * len(objects)

    def size(self, identity: str, key: str, pin: Pin) -> int | None:
        """The known size in bytes of the object under a pin; None when it is unknown."""
        parameters = (identity, key, str(pin), self._boot)
        rows = self._execute("BEGIN", _SIZE, parameters)
        return int(rows[0][0]) if rows else None

    def remember(self, rows: Iterable[Row]) -> None:
        """Write the digests of pins, in one transaction."""
        self._write("INSERT OR REPLACE", rows, durable=False)

    def learn(self, rows: Iterable[Row]) -> None:
        """Write the digests that a catalog knows of pins. Such rows promise no blob, so they need no sync."""
        self._write("INSERT OR IGNORE", rows, durable=True)

    def forget(self, digests: Iterable[str]) -> None:
        """Delete every row with one of these digests."""
        packed = [(_packed(digest),) for digest in digests]
        self._transact(_WRITE, lambda database: database.executemany("DELETE FROM pins WHERE digest = ?", packed))

    def note(self, name: str, note: str) -> None:
        """Keep a note for later runs, which must do without it when it is lost."""
        self._execute(_WRITE, "REPLACE INTO notes VALUES (?, ?)", (name, note))

    def noted(self, name: str) -> str | None:
        """The note under a name; None when there is none, or it was lost."""
        rows = self._execute("BEGIN", "SELECT note FROM notes WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def count(self, counts: Iterable[Count]) -> None:
        """Add to counters, in one transaction. They start again at zero when the memory is lost."""

        def add(database: sqlite3.Connection) -> None:
            for name, labels, amount in counts:
                key = (name, json.dumps(labels))
                if not database.execute(_ADD, (amount, *key)).rowcount:
                    (number,) = database.execute("SELECT count(*) FROM counters WHERE name = ?", (name,)).fetchone()
                    if number >= MOST_LABELS:
                        key = (name, json.dumps([OTHER] * len(labels)))
                    database.execute(_ADD_NEW, (*key, amount))

        self._transact(_WRITE, add)

    def counted(self) -> list[tuple[str, str, float]]:
        """The name, labels as JSON and value of each counter, sorted."""
        return self._execute("BEGIN", "SELECT name, labels, value FROM counters LIMIT ?", (MOST_COUNTERS,))

    def confirm(self, sync: Callable[[], bool]) -> None:
        """Sync the volume, and mark the rows from before the sync as durable.

        Args:
            sync: Makes everything that was written durable; returns False when it did not.
        """
        # Looked up before the sync: the blobs of later rows may not be part of it.
        newest = self._execute("BEGIN", "SELECT max(rowid) FROM pins")
        if sync() and newest:
            update = "UPDATE pins SET durable = 1 WHERE durable = 0 AND boot = ? AND rowid <= ?"
            self._execute(_WRITE, update, (self._boot, newest[0][0]))

    def close(self) -> None:
        """Close the database; the memory can't be used afterwards."""
        self._database.close()

    def _write(self, verb: str, rows: Iterable[Row], *, durable: bool) -> None:
        def write(database: sqlite3.Connection) -> None:
            self._notice_others(database)
            ids: dict[str, int] = {}
            stream = iter(rows)
            while batch := list(islice(stream, _BATCH)):
                for identity in {row[0] for row in batch} - ids.keys():
                    database.execute("INSERT OR IGNORE INTO sources (identity) VALUES (?)", (identity,))
                    (ids[identity],) = database.execute(_SOURCE_ID, (identity,)).fetchone()
                values = (
                    (ids[identity], key, str(pin), size, _packed(digest), self._boot, durable)
                    for identity, key, pin, size, digest in batch
                )
                rows_of_marks = ",".join(["(?,?,?,?,?,?,?)"] * len(batch))
                database.execute(f"{verb} INTO pins VALUES {rows_of_marks}", [*chain.from_iterable(values)])

        self._transact(_WRITE, write)

    def _notice_others(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA data_version").fetchone()
        self._shared |= bool(self._data_version) and version != self._data_version
        self._data_version = version

    def _execute(self, begin: str, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement; none when it failed."""
        return self._transact(begin, lambda database: database.execute(statement, parameters).fetchall()) or []

    def _transact(self, begin: str, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run an action in one transaction; None when it failed. A damaged database is removed."""
        with self._lock:
            try:
                with self._database:
                    self._database.execute(begin)
                    return action(self._database)
            except sqlite3.ProgrammingError as error:
                # Closed at the process's end, when a stream that nobody ended counts what it did.
                log.debug("the pin memory %s is closed: %s", self._path, error)
            except sqlite3.OperationalError as error:
                # Locked for too long, or read-only, or the volume is full: the memory only saves work.
                log.warning("the pin memory %s is not used now: %s", self._path, error)
            except sqlite3.DatabaseError as error:
                log.warning("the pin memory %s is damaged and starts empty: %s", self._path, error)
                self._database.close()
                self._remove()
                self._database = self._open()
        return None

    def _open(self) -> sqlite3.Connection:
        if any(path.exists() and not path.is_file() for path in (self._path, self._journal)):
            self._remove()  # SQLite would wait for whoever writes into a pipe
        # Once as it is, once with a new file, and if that fails only in this process.
        for attempt in (1, 2):
            try:
                return self._connect(str(self._path))
            except sqlite3.OperationalError as error:
                log.warning("the pin memory %s is not used now: %s", self._path, error)
                break
            except sqlite3.DatabaseError as error:
                log.warning("the pin memory %s is damaged and starts empty: %s", self._path, error)
                if attempt == 1:
                    self._remove()
        return self._connect(":memory:")

    def _connect(self, name: str) -> sqlite3.Connection:
        database = sqlite3.connect(name, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            # A longer text is none of ours, and would be read whole.
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            # After a power cut, `durable` tells which rows to drop, so no write waits for the disk.
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA journal_mode = TRUNCATE")
            if database.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                database.executescript(_SCHEMA)
            self._drop_unsynced(database)
        except sqlite3.Error:
            database.close()
            raise
        weakref.finalize(self, database.close)  # nobody closes a cache
        return database

    def _drop_unsynced(self, database: sqlite3.Connection) -> None:
        """Drop the rows of earlier boots that no sync followed: their blobs may not have reached the disk."""
        unsynced = "durable = 0 AND boot <> ?"
        if not database.execute(f"SELECT 1 FROM pins WHERE {unsynced} LIMIT 1", (self._boot,)).fetchone():  # noqa: S608
            return
        # SQLite syncs nothing of this file, so the power cut may have damaged the file itself.
        if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("the machine stopped while it was written")
        database.execute(f"DELETE FROM pins WHERE {unsynced}", (self._boot,))  # noqa: S608

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)
        except OSError as error:
            raise cache_error(error, "remove the damaged pin memory", self._path) from error


def _packed(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("blake3:"))
