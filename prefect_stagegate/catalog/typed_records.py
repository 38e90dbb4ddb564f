"""Typed records: what every part of the catalog does with keys and stored values."""

from __future__ import annotations

from typing import TypeVar

from prefect_stagegate.catalog.codec import decode
from prefect_stagegate.catalog.keys import dataset_of
from prefect_stagegate.catalog.records import Records, corrupt
from prefect_stagegate.errors import CatalogError

T = TypeVar("T")
LAST_NUMBER = 99_999_999
"""The highest that a key has room for."""


class TypedRecords:
    """Records of known types, by their keys. Numbered ones lie below a prefix: the highest number is the newest."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.url = records.url

    def _key(self, dataset: str, kind: str, digest: str, rest: str = ".parquet") -> str:
        return f"datasets/{dataset}/{kind}/{digest.removeprefix('sha256:')}{rest}"

    def _load(self, kind: type[T], key: str) -> T:
        data = self._records.read(key)
        if data is None:
            raise corrupt(key, "is gone")
        return decode(kind, data, key)

    def _load_all(self, kind: type[T], prefix: str, newest: int = 0) -> list[T]:
        """All records below a prefix, or so many of the last ones, sorted by key."""
        return [self._load(kind, key) for key in list(self._records.keys(prefix))[-newest:]]

    def _load_newest(self, kind: type[T], prefix: str) -> T | None:
        """The record with the highest number below a prefix; None without one."""
        keys = list(self._records.keys(prefix))
        return self._load(kind, keys[-1]) if keys else None

    def _append(self, prefix: str, data: bytes) -> None:
        """Store a record under the next free number. Numbers tell which is the newest, since clocks may be wrong."""
        last = self._last(prefix)
        # Another writer may have taken the number since: then the next one is tried.
        while not self._records.create(self._numbered(prefix, last + 1), data):
            last += 1

    def _numbered(self, prefix: str, number: int) -> str:
        """The key of a new record below a prefix.

        Raises:
            CatalogError: Its number has more than eight digits: it would be no record, and count for nobody.
        """
        if number > LAST_NUMBER:
            raise CatalogError(
                f"Nothing can be added after the catalog's record {prefix}{LAST_NUMBER}.json: it has the last number",
                hint="Find out who put it there, and remove it.",
                dataset=dataset_of(prefix),
            )
        return f"{prefix}{number:08d}.json"

    def _last(self, prefix: str) -> int:
        """The number of the newest record below a prefix; 0 without one."""
        names = (key.removeprefix(prefix).removesuffix(".json") for key in self._records.keys(prefix))
        return max((int(name) for name in names if name.isdigit()), default=0)
