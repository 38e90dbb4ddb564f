"""A catalog's store that counts what is asked of it: on an object store each call is a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prefect_stagegate.catalog.records import Records


class CountedRecords:
    """Passes everything on. `Catalog(CountedRecords(open_records(url, {})))` is a catalog that counts."""

    def __init__(self, records: Records) -> None:
        self._records, self.url = records, records.url
        self.calls: Counter[str] = Counter()
        """How often each method was called."""

    def read(self, key: str) -> bytes | None:
        """Count, and read."""
        self.calls["read"] += 1
        return self._records.read(key)

    def read_end(self, key: str, size: int) -> bytes | None:
        """Count, and read the end."""
        self.calls["read_end"] += 1
        return self._records.read_end(key, size)

    def create(self, key: str, data: bytes) -> bool:
        """Count, and create."""
        self.calls["create"] += 1
        return self._records.create(key, data)

    def replace(self, key: str, data: bytes) -> None:
        """Count, and replace."""
        self.calls["replace"] += 1
        self._records.replace(key, data)

    def remove(self, key: str) -> None:
        """Count, and remove."""
        self.calls["remove"] += 1
        self._records.remove(key)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Count, and list."""
        self.calls["list"] += 1
        return self._records.keys(prefix, after)

    def folders(self, prefix: str) -> list[str]:
        """Count, and list."""
        self.calls["list"] += 1
        return self._records.folders(prefix)
