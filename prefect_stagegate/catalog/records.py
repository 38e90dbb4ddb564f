"""A catalog's records as bytes, in a local directory or an object store, behind one small protocol.

Files with other names than records' keys are ignored in every listing: backups (`.bak`, `~`), editors' swap files and
file managers' folders.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from prefect_stagegate.durable import NotARecord, make_folder, read_file, sync_folder, walk_folders, write_file
from prefect_stagegate.errors import CatalogError, CorruptRecord
from prefect_stagegate.units import count_text

if TYPE_CHECKING:
    from prefect_stagegate.catalog.catalog import Catalog
    from prefect_stagegate.doors import Record
    from prefect_stagegate.transport.objectstore import ObjectRecords

T = TypeVar("T")
# The look-ahead bounds the length.
_NAME = r"(?![a-z0-9-]{64})[a-z0-9]+(?:-[a-z0-9]+)*"
_HEX = r"[0-9a-f]{64}"
_NUMBER = r"[0-9]{8}\.json"
_REQUEST = r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{12}"
_DATASET = rf"datasets/{_NAME}"
_FOREIGN = r"[a-z0-9-]{1,64}\.(?!json\b)[a-z0-9-]{1,64}"
_PART = r"/[\w-]{1,128}"
_OF_A_DATASET = (
    rf"(?:manifests|origins)/{_HEX}\.parquet",
    rf"(?:specs|failed|evidence|revocations|model-signatures)/{_HEX}/{_NUMBER}",
    rf"(?:decisions|waivers)/{_HEX}/{_NAME}/{_NUMBER}",
    rf"signatures/{_HEX}/[0-9a-f]+\.json",
    rf"approvals/_?{_NAME}/{_REQUEST}/(?:request\.json|{_NUMBER})",
    rf"approvals/{_NAME}/{_REQUEST}/waits/[\w-]+\.json",
    rf"refs/{_NAME}/{_NUMBER}",
    rf"policy/{_NUMBER}",
    rf"(?:proposals|values|parts|fleets|transfers)/{_HEX}\.json",
    rf"profiles/{_HEX}/{_HEX}\.json",
    r"probes\.json",
    # Of other packages: whatever the keys of `Record` can be.
    *(rf"{_FOREIGN}{_PART * depth}\.json" for depth in (1, 2, 3)),
)
_OF_ALL = (
    r"nodes/[\w.-]+\.json",
    rf"environments/{_HEX}\.json",
    # Of this package's plugins: numbered, about a dataset, or one of its names.
    rf"{_FOREIGN}/{_NAME}/{_NUMBER}",
    rf"{_FOREIGN}/{_NAME}{_PART}/{_NUMBER}",
)
# One expression, since a listing asks about tens of thousands of keys.
_RECORD = re.compile(rf"{_DATASET}/(?:{'|'.join(_OF_A_DATASET)})|{'|'.join(_OF_ALL)}")
_SHAPES = tuple(
    tuple(map(re.compile, shape.split("/")))
    for shape in (*(f"{_DATASET}/{shape}" for shape in _OF_A_DATASET), *_OF_ALL)
)
"""The key pattern of each kind of record, split at the slashes."""
LARGEST = 16 << 20
"""The most bytes of a record, except for those below, and for manifests and origins."""
_LARGEST_OF = {"format": 1 << 10, "nodes": 4 << 20, "failed": 64 << 20, "model-signatures": 64 << 20}
# Something of each of a table's files, which may be a million.
_LARGEST_OF |= dict.fromkeys(("values", "parts", "profiles", "probes.json"), 512 << 20)
ORPHAN_SECONDS = 3600
"""Age from which a scratch file belongs to no running writer."""


def largest(key: str) -> int:
    """The most bytes that a record of this key may have: nobody writes a larger one, and it is not read."""
    kind, *below = key.split("/")
    return _LARGEST_OF.get(below[1] if kind == "datasets" and len(below) > 1 else kind, LARGEST)


def is_record(key: str) -> bool:
    """Whether a key is that of a record."""
    return _RECORD.fullmatch(key) is not None


def leads_to_records(folder: str) -> bool:
    """Whether a folder can hold records; its key has no slash at the end."""
    parts = folder.split("/")
    return any(
        len(parts) < len(shape) and all(pattern.fullmatch(part) for pattern, part in zip(shape, parts, strict=False))
        for shape in _SHAPES
    )


def dataset_of(key: str) -> str:
    """The dataset that a record belongs to; empty for a record of no dataset."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind == "datasets" else ""


class Records(Protocol):
    """A store of small records by key. Keys have forward slashes, and only this package makes them.

    Readers see a whole record or none. When `create` or `replace` returns, the record is durable.

    A record that is larger than `largest` allows, or a link, is never read: `CorruptRecord`.
    """

    url: str
    """The store's URL without credentials, for messages."""

    def __hash__(self) -> int:
        """Of its identity: what was read from one store says nothing about another."""

    def read(self, key: str) -> bytes | None:
        """The record, or None when there is none."""

    def read_end(self, key: str, size: int) -> bytes | None:
        """The record's last `size` bytes, or all of a shorter one; None when there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Store a new record; False, and nothing changed, when the key is taken."""

    def replace(self, key: str, data: bytes) -> None:
        """Store a record, over the one that may be there."""

    def remove(self, key: str) -> None:
        """Remove a record that may be there: of a kind that decides nothing, or of a version that is removed."""

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys of records below `prefix`, which ends with a slash, sorted; other files are ignored.

        With `after`, only those that sort after this key: a store then lists no others.
        """

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix` that hold records, sorted."""


class DirectoryRecords:
    """Records as files of a local directory. Each is written to a scratch file, synced, and then linked to its name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def read(self, key: str) -> bytes | None:
        """The file's bytes, or None when there is none."""
        return self._read(key, largest(key))

    def read_end(self, key: str, size: int) -> bytes | None:
        """The file's last `size` bytes, or all of a shorter one; None when there is none."""
        return self._read(key, size, end=True)

    def _read(self, key: str, most: int, *, end: bool = False) -> bytes | None:
        try:
            return read_file(self.root / key, most, end=end)
        except FileNotFoundError:
            return None
        except NotARecord as error:
            raise corrupt(key, f"can't be read: {error}") from error
        except OSError as error:
            raise CatalogError(
                f"The catalog's record {key} can't be read from {self.url}: {error.strerror}",
                hint="Check the file's owner and mode, or name another catalog with --catalog or STAGEGATE_CATALOG.",
                dataset=dataset_of(key),
            ) from error

    def create(self, key: str, data: bytes) -> bool:
        """Link a new file to its name; False when the name is taken."""
        return self._write(key, data, os.link)

    def replace(self, key: str, data: bytes) -> None:
        """Rename a file over the one that may be there."""
        self._write(key, data, os.replace)

    def remove(self, key: str) -> None:
        """Unlink a file that may be there."""
        try:
            (self.root / key).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed("written to", error) from error

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """The records below a folder, sorted; scratch files and files of others have other names."""
        return iter(sorted(key for key in self._below(prefix) if key > after))

    def folders(self, prefix: str) -> list[str]:
        """The folders directly in a folder that hold records, sorted: a dead writer may have left an empty one."""
        below = (key.removeprefix(prefix).partition("/") for key in self._below(prefix))
        return sorted({name for name, slash, _ in below if slash})

    def _below(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix. A folder that can't be read is an error, or its records would count as absent."""
        try:
            for folder, entries in walk_folders(self.root / prefix):
                inside = os.path.relpath(folder, self.root)
                names = (entry.name for entry in entries if not entry.is_dir())
                yield from filter(is_record, (f"{inside}/{name}" for name in names))
        except FileNotFoundError:
            return  # no record yet; a folder with records is never removed
        except OSError as error:
            raise self._failed("read", error) from error

    def _write(self, key: str, data: bytes, publish: Any) -> bool:
        """Write a scratch file, and `publish` it by os.link or os.replace; False when the name is taken."""
        target = self.root / key
        # Beside its target, because links and renames work within one volume. No record has such a name.
        scratch = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            make_folder(target.parent)
            # Nobody else cleans up after a writer that was killed.
            _remove_orphans(target.parent)
            try:
                # Complete and synced before it gets its name, so that readers find the whole record or none.
                write_file(scratch, data)
                try:
                    publish(scratch, target)
                except FileExistsError:
                    self._require_record(target, key)
                    return False
            finally:
                scratch.unlink(missing_ok=True)
            sync_folder(target.parent)  # so that the new name survives a power cut
        except OSError as error:
            raise self._failed("written to", error) from error
        return True

    def _require_record(self, target: Path, key: str) -> None:
        """Refuse a name that a folder or a dead link has.

        Raises:
            CatalogError: There is no file of this name, so a writer would try to create it for ever.
        """
        if not target.is_file():
            raise CatalogError(
                f"The catalog's record {key} can't be written to {self.url}: its name is not that of a file",
                hint=f"Find out who put it there, and remove it: {target}",
                dataset=dataset_of(key),
            )

    def _failed(self, verb: str, error: OSError) -> CatalogError:
        return CatalogError(
            f"The catalog {self.url} can't be {verb}: {error.strerror}",
            hint="Check the folder's owner, mode and free space, or name another with --catalog or STAGEGATE_CATALOG.",
        )


class StoredRecords:
    """The records of an object store, without objects of other programs."""

    def __init__(self, records: ObjectRecords) -> None:
        self._records, self.url = records, records.url
        self.read_end, self.create, self.replace = records.read_end, records.create, records.replace
        self.remove = records.remove

    def read(self, key: str) -> bytes | None:
        """The record, or None when there is none."""
        try:
            return self._records.read(key, largest(key))
        except NotARecord as error:
            raise corrupt(key, f"can't be read: {error}") from error

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys of records below a prefix, sorted."""
        return filter(is_record, self._records.keys(prefix, after))

    def folders(self, prefix: str) -> list[str]:
        """The names directly below a prefix that can hold records, sorted."""
        return [name for name in self._records.folders(prefix) if leads_to_records(prefix + name)]


def corrupt(key: str, problem: str) -> CorruptRecord:
    """The error of a record that can't be believed."""
    return CorruptRecord(
        f"The catalog's record {key} {problem}", hint="Restore it from a backup.", dataset=dataset_of(key)
    )


def newest_record(catalog: Catalog, kind: Record[T], *key: str | int) -> T | None:
    """The last record whose key begins so; None without one."""
    return next(iter(catalog.all(kind, *key, newest=1)), None)


def remove_oldest(
    catalog: Catalog, kinds: Iterable[Record[Any]], *key: str, names: Sequence[str | int], keep: int, most: int
) -> None:
    """Remove records that decide nothing: of so many names that follow a key, all but the last `keep`.

    `names` are sorted, and `most` of them are removed at once. Whoever may not delete keeps more of them.
    """
    with suppress(CatalogError):
        for name in names[:-keep][:most]:
            for kind in kinds:
                catalog.records.remove(kind.path(*key, name))


def _remove_orphans(folder: Path) -> None:
    """Remove the scratch files of dead writers: no writer takes so long for a record."""
    until = time.time() - ORPHAN_SECONDS
    for path in folder.glob(f".*.{'[0-9a-f]' * 32}"):
        with suppress(FileNotFoundError):  # its writer finished, or another writer removed it
            if path.lstat().st_mtime < until:
                path.unlink()


def encode(value: Any, most: int = LARGEST) -> bytes:
    """Write a dataclass, or a list of them, as JSON with sorted keys; `CatalogError` where it has over `most` bytes."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE, default=str)
    if len(data) > most:
        raise CatalogError(f"A record of {count_text(len(data), 'byte')} can't be written: readers take {most:,}")
    return data


def decode(kind: type[T], data: bytes, key: str) -> T:
    """Read what `encode` wrote.

    `kind` is the dataclass, or `list[…]` of it. Errors name `key`.

    Raises:
        CorruptRecord: The record isn't JSON, or its fields aren't those of `kind`.
    """
    try:
        value: T = _adapter(cast("Any", kind)).validate_json(data)
    except ValidationError as error:
        # One is enough: a damaged record may have thousands.
        first = error.errors(include_url=False)[0]
        raise CorruptRecord(
            f"The catalog's record {key} can't be read: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="Restore it from a backup, or use the release that wrote it.",
            dataset=dataset_of(key),
        ) from error
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def open_records(url: str, options: Mapping[str, Any]) -> Records:
    """Open the store behind a catalog's path or URL.

    Raises:
        UsageError: The URL's scheme can't hold a catalog.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return DirectoryRecords(Path(rest if separator else url).expanduser().absolute())
    # Late: object stores take long to import, and a local catalog needs none.
    from prefect_stagegate.transport.objectstore import ObjectRecords

    return StoredRecords(ObjectRecords(url, options))
