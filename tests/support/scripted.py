"""A source in memory that fails on command, and the shortest way from a source into a cache."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from prefect_stagegate.cache import Cache
from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError, SourceUnavailable, StagegateError
from prefect_stagegate.model import Action, Pin, PlannedObject, SourceObject
from prefect_stagegate.sources.adapter import BaseSource, Source, Wanted, everything
from prefect_stagegate.transport.transfer import SourceGroup, Transfer, transfer


class ScriptedSource(BaseSource):
    """Objects in memory, pinned by their MD5 as a simple S3 server does it.

    Attributes:
        objects: Content by key; change it whenever you like.
        failures: Each read takes the first and raises it, if there is one, before its first byte.
        on_read: Called before each read with (key, start, end).
        spoil: Changes the bytes that a read gives.
        reads: Every (key, start, end) that was asked for.
    """

    def __init__(self, objects: dict[str, bytes], *, url: str = "scripted://one/") -> None:
        self.url = self.identity = url
        self.objects = objects
        self.failures: deque[StagegateError] = deque()
        self.on_read: Callable[[str, int, int], object] = lambda key, start, end: None  # noqa: ARG005
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self.reads: list[tuple[str, int, int]] = []
        self._lock = threading.Lock()

    @property
    def bytes_read(self) -> int:
        """How many bytes all reads together asked for."""
        return sum(end - start for _, start, end in self.reads)

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object, in the order of the keys."""
        return (self.find(key) for key in sorted(self.objects) if wanted(key))

    def find(self, key: str) -> SourceObject:
        """The object as it is now."""
        if key not in self.objects:
            raise ObjectVanished("The object is gone", source=self.url, object=key)
        data = self.objects[key]
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return SourceObject(key, len(data), Pin("etag", digest, "strong"), 1.0, (("md5", digest),))

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """The bytes, unless the script says otherwise."""
        end = start + len(buffer)
        with self._lock:
            self.reads.append((listed.key, start, end))
            failure = self.failures.popleft() if self.failures else None
        self.on_read(listed.key, start, end)
        if failure:
            raise failure
        if self.find(listed.key).pin != listed.pin:
            raise ObjectChanged("The object changed while it was read", source=self.url, object=listed.key)
        data = self.spoil(self.objects[listed.key][start:end])
        if len(data) < len(buffer):
            raise SourceUnavailable("The read ended early", source=self.url, object=listed.key)
        if len(data) > len(buffer):
            raise SourceError("The server sent more than was asked for", source=self.url, object=listed.key)
        buffer[:] = data


def plan_all(source: Source, cache: Cache) -> Iterator[PlannedObject]:
    """Plan everything that a source lists, each object at its key, by what the cache remembers and holds."""
    stream = source.list()
    while batch := list(islice(stream, 500)):
        known = cache.memory.recall_many([(source.identity, listed) for listed in batch])
        for listed, digest in zip(batch, known, strict=True):
            held = digest is not None and cache.blobs.holds(digest, listed.size)
            yield PlannedObject(listed.key, listed, 0, Action.REUSE if held else Action.FETCH, digest or "")


def fetch_all(source: Source, cache: Cache, *mirrors: Source, **options: Any) -> Transfer:
    """Bring everything that a source lists into a cache; `options` are those of `transfer`."""
    return transfer(plan_all(source, cache), [SourceGroup(source, mirrors)], cache, **options)
