"""Temporary SQLite tables, for lists that may not fit in memory: a staging's receipts, and the paths that it takes.

Conflicts between paths show while the sources are listed.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, NoReturn

from prefect_stagegate.errors import SourceUnavailable, UsageError
from prefect_stagegate.model import Entry, Origin, Pin, Pins, PlannedObject, Receipt
from prefect_stagegate.model.manifest import name_key

BATCH = 512
"""Rows that are written by one statement."""
KNOWN_FOLDERS = 4096
"""Folders that are remembered in memory, so that most paths need no look at the table."""
_INSERT = "INSERT OR IGNORE INTO names"
_FIND = "SELECT path, folder, source, key FROM names WHERE name = ?"
_LACKING = (
    "SELECT EXISTS (SELECT 1 FROM expected WHERE NOT EXISTS "
    "(SELECT 1 FROM names WHERE names.name = expected.name AND NOT folder))"
)


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


class Ledger:
    """Collects the receipts of one staging and gives them back in the order of their paths."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._new: list[tuple[object, ...]] = []
        self._database = temporary(
            "CREATE TABLE receipts (path TEXT PRIMARY KEY, size INT, digest TEXT, source INT, key TEXT, pin_kind TEXT, "
            "pin_value TEXT, pin_strength TEXT, modified REAL, proof TEXT, state TEXT) WITHOUT ROWID",
            self,
        )
        self.fetched = 0
        """Bytes that came over the wire."""
        self.reused = 0
        """Bytes that the cache had."""

    def add(self, receipt: Receipt) -> None:
        """Add a receipt."""
        listed, pin = receipt.object, receipt.object.pin
        row = (receipt.path, listed.size, receipt.digest, receipt.source, listed.key)
        self._new.append((*row, pin.kind, pin.value, pin.strength, listed.modified, receipt.proof, listed.state))
        if len(self._new) >= BATCH:
            self._flush()
        self.fetched += receipt.fetched
        self.reused += max(0, listed.size - receipt.fetched)

    def entries(self) -> Iterator[Entry]:
        """The manifest's rows."""
        self._flush()
        return (Entry(*row) for row in self._database.execute("SELECT path, size, digest FROM receipts ORDER BY path"))

    def pins(self) -> Pins | None:
        """The weakest of the pins that fix the entries at their sources; None without receipts."""
        self._flush()
        select = "SELECT pin_kind, pin_strength, count(*) FROM receipts GROUP BY 1, 2"
        return Pins.of({(kind, strength): count for kind, strength, count in self._database.execute(select)})

    def origins(self) -> Iterator[Origin]:
        """The origin of each entry."""
        self._flush()
        for row in self._database.execute("SELECT * FROM receipts ORDER BY path"):
            path, size, digest, source, key, kind, value, strength, modified, proof, state = row
            pin = Pin(kind, value, strength)
            yield Origin(path, self._urls[source], key, size, pin, proof, digest, modified, source, state)

    def _flush(self) -> None:
        insert(self._database, "INSERT INTO receipts", self._new)
        self._new.clear()


class _Taken(NamedTuple):
    """A path that an object wants, or a folder that it needs."""

    path: str
    folder: bool
    source: int
    key: str


class Paths:
    """The taken paths, in a temporary table. Refuses objects whose paths can't be in one dataset.

    Args:
        urls: The sources, by their position in the spec; errors name them.
        folds_case: Whether the cache's volume takes names that differ only in case for one.
    """

    def __init__(self, urls: Sequence[str], *, folds_case: bool = False) -> None:
        self._urls = urls
        self._folds_case = folds_case
        self._known: set[str] = set()
        self._database = temporary(
            "CREATE TABLE names (name TEXT PRIMARY KEY, path TEXT, folder INT, source INT, key TEXT) WITHOUT ROWID",
            self,
        )
        self._database.execute("CREATE TABLE expected (name TEXT)")

    def expect(self, paths: Iterable[str]) -> None:
        """Note paths that objects should take."""
        insert(self._database, "INSERT INTO expected", [(self._name(path),) for path in paths])

    def lacks_expected(self) -> bool:
        """Whether there is an expected path that no object has taken, nor a twin of it."""
        return bool(self._database.execute(_LACKING).fetchone()[0])

    def take(self, batch: Sequence[PlannedObject]) -> None:
        """Take the paths of a batch of objects, and the folders that they need.

        Raises:
            UsageError: Another object has one of the paths, or its twin, or is a file where a folder is needed. The
                error names both.
            SourceUnavailable: A source listed one object twice.
        """
        files = [_Taken(planned.path, False, planned.source, planned.object.key) for planned in batch]
        self._take(files)
        self._take(list(self._folders(files)))

    def has(self, path: str) -> bool:
        """Whether an object has the path, or a twin of it."""
        row = self._database.execute(_FIND, (self._name(path),)).fetchone()
        return row is not None and not row[1]

    def _take(self, claims: Sequence[_Taken]) -> None:
        rows = [(self._name(taken.path), *taken) for taken in claims]
        # Fewer new rows than paths: a name was there already. Only then each is looked up.
        if insert(self._database, _INSERT, rows) < len(rows):
            self._refuse_conflicts(claims)

    def _name(self, path: str) -> str:
        return name_key(path, folds_case=self._folds_case)

    def _folders(self, files: Iterable[_Taken]) -> Iterator[_Taken]:
        """Each folder of the files that is not in memory, with the object that needs it."""
        if len(self._known) > KNOWN_FOLDERS:
            # A forgotten folder costs another look at the table, and no more.
            self._known.clear()
        for file in files:
            folder = file.path.rpartition("/")[0]
            while folder and folder not in self._known:
                self._known.add(folder)
                yield _Taken(folder, True, file.source, file.key)
                folder = folder.rpartition("/")[0]

    def _refuse_conflicts(self, claims: Sequence[_Taken]) -> None:
        """Raise the first conflict with a path that is taken. Two objects may share a folder."""
        seen: set[str] = set()
        for taken in claims:
            name = self._name(taken.path)
            path, folder, source, key = self._database.execute(_FIND, (name,)).fetchone()
            holder = _Taken(path, bool(folder), source, key)
            share_folder = holder.folder and taken.folder and holder.path == taken.path
            # A row that equals this one is its own, unless the batch had the name before.
            if not share_folder and (holder != taken or name in seen):
                self._refuse(holder, taken)
            seen.add(name)

    def _refuse(self, first: _Taken, second: _Taken) -> NoReturn:
        if first.folder != second.folder:
            file, other = (second, first) if first.folder else (first, second)
            raise UsageError(
                f"{self._object(file)} is a file, and {self._object(other)} needs it to be a folder",
                hint="Give one of the two sources another `into:`, or leave one object out by `exclude:`.",
                object=file.path,
            )
        if first == second:
            raise SourceUnavailable(
                f"The listing names {second.key!r} twice",
                hint="Stage again. If it stays so, the bucket has that key with and without a slash at its end, or its "
                "server's listings can't be trusted.",
                source=self._urls[second.source],
                object=second.key,
            )
        if first.path == second.path:
            raise UsageError(
                f"Two objects want the path {second.path!r}: {self._object(first)} and {self._object(second)}",
                hint="Give one of the two sources another `into:`, or leave one object out by `exclude:`.",
                object=second.path,
            )
        if name_key(first.path) == name_key(second.path):
            # Both look alike, so they are written by their code points.
            raise UsageError(
                f"{first.path!a} and {second.path!a} look the same, and differ only in Unicode form (NFC and NFD)",
                hint="Rename one of the two at its source, or leave it out by `exclude:`.",
                source=self._urls[second.source],
            )
        raise UsageError(
            f"The names {first.path!r} and {second.path!r} differ only in case, and the cache's volume ignores case",
            hint="Rename one of the two, leave it out by `exclude:`, or choose a case-sensitive volume with --cache.",
            source=self._urls[second.source],
        )

    def _object(self, taken: _Taken) -> str:
        return f"{taken.key!r} of {self._urls[taken.source]}"
