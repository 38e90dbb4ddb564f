"""Typed records: the catalog's verbs, which read and write records of any kind by their keys, as canonical JSON."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from prefect_stagegate.catalog.records import LARGEST, Records, corrupt, dataset_of, is_record, largest
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import CatalogError, CorruptRecord
from prefect_stagegate.units import count_text

T = TypeVar("T")
_TOO_LARGE = "/100000000.json"


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


class TypedRecords:
    """Records of known kinds, by their keys. Of numbered ones, the highest number is the newest.

    Every method may raise `CatalogError`, and `CorruptRecord` for a damaged record.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self.url = records.url

    def get(self, kind: Record[T], *key: str | int) -> T | None:
        """A record; None without one."""
        data = self._records.read(path := kind.path(*key))
        return None if data is None else decode(kind.content, data, path)

    def read_end(self, kind: Record[T], size: int, *key: str | int) -> bytes:
        """A record's last `size` bytes as stored, or all of a shorter one; empty without one."""
        return self._records.read_end(kind.path(*key), size) or b""

    def require(self, kind: Record[T], *key: str | int) -> T:
        """A record, which must be there."""
        if (record := self.get(kind, *key)) is None:
            raise corrupt(kind.path(*key), "is gone")
        return record

    def all(self, kind: Record[T], *key: str | int, newest: int = 0) -> list[T]:
        """All records whose keys begin so, sorted by key, or so many of the last ones."""
        return [self.require(kind, *key, *name.split("/")) for name in self.names(kind, *key)[-newest:]]

    def names(self, kind: Record[T], *key: str | int, after: str = "") -> list[str]:
        """The rest of the keys that begin so, sorted and with slashes; with `after`, those that sort after it."""
        folder = kind.folder(*key)
        paths = self._records.keys(folder, after=folder + after if after else "")
        return [path.removeprefix(folder).removesuffix(".json") for path in paths]

    def numbers(self, kind: Record[T], *key: str | int) -> list[int]:
        """The numbers of the numbered records whose keys begin so, sorted."""
        return list(map(int, filter(str.isdigit, self.names(kind, *key))))

    def folders(self, kind: Record[T], *key: str | int) -> list[str]:
        """What follows a key's beginning in the keys of longer ones, sorted."""
        return self._records.folders(kind.folder(*key))

    def create(self, kind: Record[T], record: T, *key: str | int) -> bool:
        """Store a new record; False, and nothing changed, when its key is taken."""
        return self._records.create(path := kind.path(*key), _encoded(path, record))

    def put(self, kind: Record[T], record: T, *key: str | int) -> None:
        """Store a record, over an earlier one."""
        self._records.replace(path := kind.path(*key), _encoded(path, record))

    def add(self, kind: Record[T], record: T, *key: str | int) -> None:
        """Store a record under the next free number. Numbers tell which is the newest, since clocks may be wrong."""
        last = max(self.numbers(kind, *key), default=0)
        # Another writer may have taken the number since: then the next one is tried.
        while not self.create(kind, record, *key, last + 1):
            last += 1


def _encoded(path: str, record: object) -> bytes:
    if path.endswith(_TOO_LARGE):
        raise CatalogError(
            f"Nothing can be added after the catalog's record {path.removesuffix(_TOO_LARGE)}/99999999.json: "
            "it has the last number",
            hint="Find out who put it there, and remove it.",
            dataset=dataset_of(path),
        )
    # Listings would leave it out, so it would count for nobody.
    if not is_record(path):
        raise CatalogError(f"The catalog can't keep a record at {path}", hint="Use the key that its kind has.")
    return encode(record, largest(path))
