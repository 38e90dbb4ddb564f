"""Where a catalog keeps its records: a local directory or an object store, behind one small protocol."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from prefect_stagegate.catalog.keys import dataset_of, is_record, leads_to_records
from prefect_stagegate.durable import make_folder, read_file, sync_folder, write_file
from prefect_stagegate.errors import CatalogError
from prefect_stagegate.trees import walk_folders

ORPHAN_SECONDS = 3600
"""How long a scratch file may be another writer's that lives."""


class Records(Protocol):
    """A store of small records by key. Keys have forward slashes and come from this package only.

    A record that `create` or `replace` returned from is durable, and readers see all of it or nothing.
    """

    url: str
    """Where the store is, for people, without credentials."""

    def read(self, key: str) -> bytes | None:
        """The record, or None when there is none."""

    def read_end(self, key: str, size: int) -> bytes | None:
        """The last bytes of the record, so many or all that it has; None when there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Store a new record; False, and nothing changed, when the key is taken."""

    def replace(self, key: str, data: bytes) -> None:
        """Store a record in place of the one that may be there."""

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys of records below `prefix`, which ends with a slash, sorted; files of another shape are ignored."""

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix` that hold records, sorted."""


class DirectoryRecords:
    """Records as files of a local directory; each is written beside its place, synced and then linked there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def read(self, key: str) -> bytes | None:
        """The file's bytes, or None when there is none."""
        return self._read(key)

    def read_end(self, key: str, size: int) -> bytes | None:
        """The same of its last bytes."""
        return self._read(key, size)

    def _read(self, key: str, last: int | None = None) -> bytes | None:
        try:
            return read_file(self.root / key, last)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CatalogError(
                f"The catalog's record {key} can't be read from {self.url}: {error.strerror}",
                hint="Check the file's owner and mode, or name another catalog with --catalog or STAGEGATE_CATALOG.",
                dataset=dataset_of(key),
            ) from error

    def create(self, key: str, data: bytes) -> bool:
        """Link a new file into its place; False when the name is taken."""
        return self._write(key, data, os.link)

    def replace(self, key: str, data: bytes) -> None:
        """Rename a file over the one that may be there."""
        self._write(key, data, os.replace)

    def keys(self, prefix: str) -> Iterator[str]:
        """The records below a folder, sorted; scratch files have other names, and so has what others left."""
        return iter(sorted(self._below(prefix)))

    def folders(self, prefix: str) -> list[str]:
        """The folders directly in a folder, sorted, without those of writers that died before their record stood."""
        below = (key.removeprefix(prefix).partition("/") for key in self._below(prefix))
        return sorted({name for name, slash, _ in below if slash})

    def _below(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix. A folder that can't be read is an error: what it holds must not count as absent."""
        try:
            for folder, entries in walk_folders(self.root / prefix):
                inside = os.path.relpath(folder, self.root)
                names = (entry.name for entry in entries if not entry.is_dir())
                yield from filter(is_record, (f"{inside}/{name}" for name in names))
        except FileNotFoundError:
            return  # no record yet; a folder with records is never removed
        except OSError as error:
            raise self._failed("read", error) from error

    def _write(self, key: str, data: bytes, place: Any) -> bool:
        target = self.root / key
        scratch = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            make_folder(target.parent)
            _remove_orphans(target.parent)
            try:
                write_file(scratch, data)
                try:
                    place(scratch, target)
                except FileExistsError:
                    self._require_record(target, key)
                    return False
            finally:
                scratch.unlink(missing_ok=True)
            sync_folder(target.parent)
        except OSError as error:
            raise self._failed("written to", error) from error
        return True

    def _require_record(self, target: Path, key: str) -> None:
        """Refuse a name that a folder or a dead link has: whoever wants the next record would try it for ever.

        Raises:
            CatalogError: It has.
        """
        if not target.is_file():
            raise CatalogError(
                f"The catalog's record {key} can't be written to {self.url}: something that is no file has its name",
                hint=f"Find out who put it there, and remove it: {target}",
                dataset=dataset_of(key),
            )

    def _failed(self, verb: str, error: OSError) -> CatalogError:
        return CatalogError(
            f"The catalog {self.url} can't be {verb}: {error.strerror}",
            hint="Check the folder's owner, mode and free space, or name another with --catalog or STAGEGATE_CATALOG.",
        )


class StoredRecords:
    """The records of a store that others may put objects into: those that have another shape are ignored."""

    def __init__(self, records: Records) -> None:
        self._records, self.url = records, records.url
        self.read, self.read_end = records.read, records.read_end
        self.create, self.replace = records.create, records.replace

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys of records below a prefix, sorted."""
        return filter(is_record, self._records.keys(prefix))

    def folders(self, prefix: str) -> list[str]:
        """The names directly below a prefix that can hold records, sorted."""
        return [name for name in self._records.folders(prefix) if leads_to_records(prefix + name)]


def _remove_orphans(folder: Path) -> None:
    """Remove what writers that died left in a folder. No writer takes so long over a record."""
    until = time.time() - ORPHAN_SECONDS
    for path in folder.glob(f".*.{'[0-9a-f]' * 32}"):
        with suppress(FileNotFoundError):  # its writer, or another one, was faster
            if path.lstat().st_mtime < until:
                path.unlink()


def open_records(url: str, options: Mapping[str, Any]) -> Records:
    """Open the store behind a catalog's path or URL.

    Raises:
        UsageError: The URL's scheme can't hold a catalog.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return DirectoryRecords(Path(rest if separator else url).expanduser().absolute())
    # Object stores take a while to import, and a local catalog needs none.
    from prefect_stagegate.objectstore import ObjectRecords

    return StoredRecords(ObjectRecords(url, options))
