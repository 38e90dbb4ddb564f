"""A catalog's small records in an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from prefect_stagegate.durable import too_large
from prefect_stagegate.errors import UsageError
from prefect_stagegate.redaction import remember_access
from prefect_stagegate.transport.objectstore.object_requests import ListedObject
from prefect_stagegate.transport.objectstore.s3_buckets import open_s3, parse_bucket_url
from prefect_stagegate.transport.objectstore.s3_options import translate
from prefect_stagegate.transport.objectstore.store import ObjectStore


class MemoryStore:
    """Objects in this process's memory, for tests and trials. Its calls are those of `ObjectStore`."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, object]] = {}

    def get(self, key: str, most: int, *, end: bool = False) -> bytes | None:
        """As an object store does."""
        data, _ = self._objects.get(key, (None, None))
        if data is not None and len(data) > most and not end:
            raise too_large(len(data), most)
        return data and data[-most:]

    def create(self, key: str, data: bytes) -> bool:
        """As an object store does."""
        mark = object()
        return self._objects.setdefault(key, (data, mark))[1] is mark  # in one step, for threads

    def replace(self, key: str, data: bytes) -> None:
        """As an object store does."""
        self._objects[key] = (data, object())

    def remove(self, key: str) -> None:
        """As an object store does."""
        self._objects.pop(key, None)

    def listing(self, prefix: str, after: str = "") -> Iterator[ListedObject]:
        """As an object store does."""
        for key, (data, _) in list(self._objects.items()):
            if key.startswith(prefix) and key > after:
                yield ListedObject(key, len(data), "", 0.0)

    def folders(self, prefix: str) -> list[str]:
        """As an object store does."""
        below = (listed.key.removeprefix(prefix).partition("/") for listed in self.listing(prefix))
        return sorted({name for name, slash, _ in below if slash})


_in_memory: dict[str, MemoryStore] = {}


class ObjectRecords:
    """Records as objects below a URL: `s3://bucket/folder`, or `memory://name` for this process only.

    The store must honour create-if-absent: the catalog's safety depends on it.

    Raises:
        UsageError: The scheme or an option can't be used.
        AccessDenied: There are no credentials.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        # Before anything can fail: no error may show them.
        remember_access(url, {**os.environ, **(options or {})})
        self._store, prefix = _open(url, options or {})
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def read(self, key: str, most: int) -> bytes | None:
        """The record, or None when there is none; `NotARecord` where it has more than `most` bytes."""
        return self._store.get(self._prefix + key, most)

    def read_end(self, key: str, size: int) -> bytes | None:
        """The record's last `size` bytes, or all of a shorter one; None when there is none."""
        return self._store.get(self._prefix + key, size, end=True)

    def create(self, key: str, data: bytes) -> bool:
        """Store a new record; False, and nothing changed, when the key is taken."""
        return self._store.create(self._prefix + key, data)

    def replace(self, key: str, data: bytes) -> None:
        """Store a record, over the one that may be there."""
        self._store.replace(self._prefix + key, data)

    def remove(self, key: str) -> None:
        """Remove a record that may be there."""
        self._store.remove(self._prefix + key)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys below `prefix`, which ends with a slash, sorted; with `after`, those that sort after it."""
        listing = self._store.listing(self._prefix + prefix, self._prefix + after if after else "")
        # Sorted here: not every server lists in order, and not every one heeds `after`.
        return iter(sorted(key for listed in listing if (key := listed.key.removeprefix(self._prefix)) > after))

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix` that hold records, sorted."""
        return self._store.folders(self._prefix + prefix)


def _open(url: str, options: Mapping[str, Any]) -> tuple[ObjectStore | MemoryStore, str]:
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        # One store a name, so that opening the URL again finds its records.
        name, _, prefix = rest.partition("/")
        return _in_memory.setdefault(name, MemoryStore()), prefix
    if scheme in ("s3", "s3a"):
        path = parse_bucket_url(url)
        settings, left = translate(options)
        if left:
            raise UsageError(f"The option {left[0]!r} can't be used for a catalog", hint="Leave it out.", source=url)
        return open_s3(path, settings), path.key
    raise UsageError(f"A catalog can't be kept at {scheme}://", hint="Use a folder or an s3:// URL.")
