"""Where the bytes that a process reads come from: another machine, this one's storage, or the page cache.

Three facts tell:

- /proc/self/io counts what this process had read from storage: the rest was given by the page cache;
- mincore says what the page cache holds of the files when reading begins;
- the type of the file system says whether its storage is this machine's, another's (NFS, Lustre, …), or memory (tmpfs).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.mounts import NETWORK
from prefect_stagegate.readiness.node.machine import Machine
from prefect_stagegate.readiness.node.pagecache import cached, forget

MEMORY = ("tmpfs", "ramfs")
"""File systems whose storage is memory."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """Bytes by where they came from."""

    source: int = 0
    """Over the network: the cache lies on another machine's file system."""
    local: int = 0
    """This machine's storage: its disks, or the memory of a tmpfs."""
    page_cache: int = 0
    """Memory that held them from an earlier read."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.source + self.local + self.page_cache


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading for a while gave."""

    tiers: Tiers
    seconds: float
    """From the first read's begin to the last one's end."""
    cpu: float
    """Seconds that this process computed, over all cores."""
    cached_before: int
    """Bytes of the files that the page cache held before they were dropped."""

    @property
    def rate(self) -> float:
        """Bytes a second that did not come from the page cache."""
        return (self.tiers.total - self.tiers.page_cache) / self.seconds if self.seconds else 0.0

    @property
    def warm(self) -> bool:
        """Whether the page cache gave most of it, so that the figures say nothing about the volume."""
        return 2 * self.tiers.page_cache > self.tiers.total


def split_by_tier(read: int, from_storage: int | None, still_cached: int, kind: str) -> Tiers:
    """Say where bytes came from.

    Args:
        read: How many were read.
        from_storage: What the process had read from storage meanwhile, read-ahead and all; None when unknown.
        still_cached: What of the files the page cache held when reading began.
        kind: Type of the file system that the files lie on.
    """
    if kind in MEMORY:
        return Tiers(local=read)
    fetched = read - min(still_cached, read) if from_storage is None else min(from_storage, read)
    if kind in NETWORK:
        return Tiers(source=fetched, page_cache=read - fetched)
    return Tiers(local=fetched, page_cache=read - fetched)


class TierMeter:
    """Drops files from the page cache, and measures what is read of them from then on.

    Args:
        files: With the bytes of each that are to be read.
        until: The moment of the monotonic clock when dropping ends; what is not dropped by then is left out.
        machine: Where Linux tells of this process.
    """

    def __init__(self, files: Iterable[tuple[Path, int]], until: float, machine: Machine) -> None:
        self.files: list[tuple[Path, int]] = []
        """What was dropped, and may be read."""
        self._machine = machine
        self._before = self._still = 0
        for file, size in files:
            if self.files and time.monotonic() >= until:
                break
            self._before += forget(file, size)
            self._still += cached(file, size)
            self.files.append((file, size))
        mount = machine.mount(self.files[0][0].parent) if self.files else None
        self._kind = mount.kind if mount else ""
        self.begin()

    def begin(self) -> None:
        """Measure from now on: the readers are ready."""
        self._storage = self._machine.read_from_storage()
        self._cpu = time.process_time()
        self._begun = time.monotonic()

    def reading(self, read: int) -> Reading:
        """What came of it, now that `read` bytes were read."""
        seconds, cpu = time.monotonic() - self._begun, time.process_time() - self._cpu
        storage = self._machine.read_from_storage()
        fetched = None if storage is None or self._storage is None else storage - self._storage
        return Reading(split_by_tier(read, fetched, self._still, self._kind), seconds, cpu, self._before)
