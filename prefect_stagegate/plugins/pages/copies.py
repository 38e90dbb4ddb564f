"""Copies of a catalog's records: those that never change stay in memory, and one listing a dataset tells what is new.

    manifests, evidence, decisions, entries of logs, …   read once, and kept up to `COPIES` bytes
    a dataset's keys                                     listed again once the listing is older than `FRESH` seconds
    origins, profiles, what nodes say                    read each time: these records are replaced

The catalog's own code reads through it, so pages check and say what commands check and say. Nothing can be written.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, TypeVar

from prefect_stagegate.catalog.catalog import FORMAT_KEY
from prefect_stagegate.catalog.records import Records, dataset_of
from prefect_stagegate.errors import CatalogError
from prefect_stagegate.plugins.pages.kept import Bounded, Refreshed

T = TypeVar("T")
COPIES = 256 << 20
"""Bytes of records that are kept."""
LISTINGS = 8_000_000
"""Keys that are kept, about 150 bytes each."""
OF_LISTING = 1000
"""As how many keys a listing counts beside its own: addresses may name any number of datasets that don't exist."""
FRESH = 2.0
"""Seconds for which a listing is believed."""
LISTERS = 8
"""Listings at a time."""
_UNCHANGING = frozenset(
    (
        *("manifests", "specs", "failed", "evidence", "decisions", "waivers", "revocations", "signatures"),
        *("model-signatures", "proposals"),
    )
) | {"refs", "policy", "approvals"}
_DATASETS = "datasets/"


class CopiedRecords:
    """A store's records, read through copies."""

    def __init__(self, records: Records) -> None:
        self._records, self.url = records, records.url
        self._copies, self._listings = Bounded(COPIES), Bounded(LISTINGS)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(LISTERS, "stagegate-listings")
        self._datasets = Refreshed(
            lambda: self._records.folders(_DATASETS) or self._nothing([]), self._pool, fresh=FRESH
        )

    def read(self, key: str) -> bytes | None:
        """The record, or None when there is none."""
        if not _never_changes(key):
            return self._records.read(key)
        data: bytes | None = self._copies.get(key)
        if data is None and (data := self._records.read(key)) is not None:
            self._copies.put(key, data, len(data))
        return data

    def read_end(self, key: str, size: int) -> bytes | None:
        """The record's last `size` bytes, or all of a shorter one; None when there is none."""
        if not _never_changes(key):
            return self._records.read_end(key, size)
        whole: bytes | None = self._copies.get(key)
        if whole is not None:
            return whole[-size:]
        end: bytes | None = self._copies.get((key, size))
        if end is None and (end := self._records.read_end(key, size)) is not None:
            self._copies.put((key, size), end, len(end))
        return end

    def create(self, key: str, data: bytes = b"") -> NoReturn:
        """Refuse to write."""
        del data
        raise CatalogError(f"The pages only read the catalog, and write no {key}")

    replace = remove = create

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys below `prefix`, which ends with a slash, sorted; with `after`, those that sort after it."""
        if not dataset_of(prefix):
            return self._records.keys(prefix, after)
        keys = self._listing(dataset_of(prefix))
        begin = max(bisect_left(keys, prefix), bisect_right(keys, after))
        # "0" is the character after the slash.
        return iter(keys[begin : bisect_left(keys, f"{prefix[:-1]}0")])

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix` that hold records, sorted."""
        if prefix == _DATASETS:
            return self._datasets.get()
        if not dataset_of(prefix):
            return self._records.folders(prefix)
        return list(_folders(self._listing(dataset_of(prefix)), prefix))

    def generation(self, dataset: str) -> int:
        """A number that changes when a record of the dataset is added; replaced records don't change it."""
        return hash(self._listing(dataset))

    def _listing(self, dataset: str) -> tuple[str, ...]:
        with self._lock:
            refreshed: Refreshed[tuple[str, ...]] | None = self._listings.get(dataset)
            if refreshed is None:
                refreshed = Refreshed(lambda: self._list(dataset), self._pool, fresh=FRESH)
                self._listings.put(dataset, refreshed, OF_LISTING)
        return refreshed.get()

    def _list(self, dataset: str) -> tuple[str, ...]:
        keys = tuple(self._records.keys(f"{_DATASETS}{dataset}/")) or self._nothing(())
        refreshed = self._listings.get(dataset)
        if refreshed is not None:
            # Known only now: how much of the bound the listing takes.
            self._listings.put(dataset, refreshed, len(keys) + OF_LISTING)
        return keys

    def _nothing(self, empty: T) -> T:
        """An empty listing, where the catalog is there: a folder that is not mounted any more looks empty."""
        if self._records.read(FORMAT_KEY) is None:
            raise CatalogError(f"There is no catalog at {self.url} any more", hint="Is its folder mounted?")
        return empty


def _never_changes(key: str) -> bool:
    parts = key.split("/")
    if dataset_of(key):
        return len(parts) > 2 and parts[2] in _UNCHANGING and "waits" not in parts  # noqa: PLR2004 - datasets/NAME/KIND
    return key == FORMAT_KEY


def _folders(keys: tuple[str, ...], prefix: str) -> Iterator[str]:
    position = bisect_left(keys, prefix)
    while position < len(keys) and keys[position].startswith(prefix):
        name, slash, _ = keys[position].removeprefix(prefix).partition("/")
        if slash:
            yield name
            # Past all keys of this folder.
            position = bisect_left(keys, f"{prefix}{name}0", position)
        else:
            position += 1
