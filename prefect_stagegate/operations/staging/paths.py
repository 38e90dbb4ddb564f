"""The paths that a staging takes, each with its folders: what can't stand beside another is found while listing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, NoReturn

from prefect_stagegate.errors import SourceUnavailable, UsageError
from prefect_stagegate.manifest import one_name
from prefect_stagegate.model import PlannedObject
from prefect_stagegate.operations.staging.temporary_tables import insert, temporary

KNOWN_FOLDERS = 4096
"""Folders that are remembered outside of the table, where most paths find theirs."""
_INSERT = "INSERT OR IGNORE INTO names"
_FIND = "SELECT path, folder, source, key FROM names WHERE name = ?"
_LACKING = (
    "SELECT EXISTS (SELECT 1 FROM expected WHERE NOT EXISTS "
    "(SELECT 1 FROM names WHERE names.name = expected.name AND NOT folder))"
)


class _Taken(NamedTuple):
    """A path that an object wants, or a folder that it needs."""

    path: str
    folder: bool
    source: int
    key: str


class Paths:
    """The paths that are taken, so that two objects that can't stand beside each other are found before anything is.

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
        """Note some paths that objects should take."""
        insert(self._database, "INSERT INTO expected", [(self._name(path),) for path in paths])

    def lack(self) -> bool:
        """Whether no object has taken one of the expected paths, or a name that is the same."""
        return bool(self._database.execute(_LACKING).fetchone()[0])

    def take(self, batch: Sequence[PlannedObject]) -> None:
        """Take the paths of some objects, and the folders that they need.

        Raises:
            UsageError: Another object has one of the paths, or its twin, or is a file where a folder is needed; both
                are named.
            SourceUnavailable: A source listed one object twice.
        """
        files = [_Taken(one.path, False, one.source, one.object.key) for one in batch]
        self._take(files)
        self._take(list(self._folders(files)))

    def has(self, path: str) -> bool:
        """Whether an object has the path, or one that is the same name."""
        found = self._database.execute(_FIND, (self._name(path),)).fetchone()
        return found is not None and not found[1]

    def _take(self, wanted: Sequence[_Taken]) -> None:
        rows = [(self._name(one.path), *one) for one in wanted]
        if insert(self._database, _INSERT, rows) < len(rows):
            self._judge(wanted)

    def _name(self, path: str) -> str:
        return one_name(path, folds_case=self._folds_case)

    def _folders(self, files: Iterable[_Taken]) -> Iterator[_Taken]:
        """Every folder of the paths that was not seen lately, with the object that needs it."""
        if len(self._known) > KNOWN_FOLDERS:
            self._known.clear()
        for one in files:
            folder = one.path.rpartition("/")[0]
            while folder and folder not in self._known:
                self._known.add(folder)
                yield _Taken(folder, True, one.source, one.key)
                folder = folder.rpartition("/")[0]

    def _judge(self, wanted: Sequence[_Taken]) -> None:
        """Refuse the first that another can't stand beside; one folder of two objects is no matter."""
        seen: set[str] = set()
        for one in wanted:
            name = self._name(one.path)
            path, folder, source, key = self._database.execute(_FIND, (name,)).fetchone()
            holder = _Taken(path, bool(folder), source, key)
            one_folder = holder.folder and one.folder and holder.path == one.path
            if not one_folder and (holder != one or name in seen):
                self._refuse(holder, one)
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
        if one_name(first.path) == one_name(second.path):
            # Both look alike, so they are written by their code points.
            raise UsageError(
                f"The names {first.path!a} and {second.path!a} are one name whose letters are written in two ways "
                "(Unicode NFC and NFD)",
                hint="Rename one of the two at its source, or leave it out by `exclude:`.",
                source=self._urls[second.source],
            )
        raise UsageError(
            f"The names {first.path!r} and {second.path!r} differ only in case, and the cache's volume takes them for "
            "one",
            hint="Rename one of the two, leave it out by `exclude:`, or choose a volume that tells case with --cache.",
            source=self._urls[second.source],
        )

    def _object(self, one: _Taken) -> str:
        return f"{one.key!r} of {self._urls[one.source]}"
