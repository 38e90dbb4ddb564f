"""Where the bytes that a process reads come from: another machine, this machine's storage, or the page cache.

Three facts decide:

- /proc/self/io counts the bytes that came from storage for this process: the rest came from the page cache;
- mincore says what the page cache holds of the files when reading begins;
- the type of the file system says whether its storage is this machine's, another's (NFS, Lustre, …), or memory (tmpfs).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.mounts import MEMORY, NETWORK
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.node.pagecache import cached, forget


@dataclass(frozen=True, slots=True)
class Tiers:
    """Bytes by the tier that they came from."""

    source: int = 0
    """From another machine, over the network: the cache lies on its file system."""
    local: int = 0
    """From this machine's storage: its disks, or the memory of a tmpfs."""
    page_cache: int = 0
    """From memory that held them since an earlier read."""

    @property
    def total(self) -> int:
        """Bytes of all tiers."""
        return self.source + self.local + self.page_cache


@dataclass(frozen=True, slots=True)
class Reading:
    """The measurements of one period of reading."""

    tiers: Tiers
    seconds: float
    """From the begin of the first read to the end of the last."""
    cpu: float
    """CPU seconds of this process, over all cores."""
    cached_before: int
    """Bytes of the files that the page cache held before they were dropped."""

    @property
    def rate(self) -> float:
        """Bytes a second, without those from the page cache."""
        return (self.tiers.total - self.tiers.page_cache) / self.seconds if self.seconds else 0.0

    @property
    def warm(self) -> bool:
        """Whether most bytes came from the page cache, so that the figures say nothing about the volume."""
        return 2 * self.tiers.page_cache > self.tiers.total


def split_by_tier(read: int, from_storage: int | None, still_cached: int, kind: str) -> Tiers:
    """Split bytes by the tier that they came from.

    Args:
        read: Bytes that were read.
        from_storage: Bytes that came from storage meanwhile, read-ahead included; None when unknown.
        still_cached: Bytes of the files that the page cache held when reading began.
        kind: Type of the file system that the files lie on.
    """
    if kind in MEMORY:
        return Tiers(local=read)
    # Read-ahead may fetch more than was read, and the cache hold more: neither tier can have more than was read.
    fetched = read - min(still_cached, read) if from_storage is None else min(from_storage, read)
    if kind in NETWORK:
        return Tiers(source=fetched, page_cache=read - fetched)
    return Tiers(local=fetched, page_cache=read - fetched)


class TierMeter:
    """Drops files from the page cache, then measures from which tiers their bytes are read.

    Args:
        files: Files, each with the number of bytes to read.
        until: When dropping ends, by the monotonic clock. Files that are not dropped by then are left out.
        machine: The folders where Linux describes this process.
    """

    def __init__(self, files: Iterable[tuple[Path, int]], until: float, machine: Machine) -> None:
        self.files: list[tuple[Path, int]] = []
        """The files that were dropped, and are to be read."""
        self._machine = machine
        self._before = self._still = 0
        for file, size in files:
            # At least one file is dropped, so that something can be measured.
            if self.files and time.monotonic() >= until:
                break
            self._before += forget(file, size)
            self._still += cached(file, size)  # pages that others use stay
            self.files.append((file, size))
        # All files of a view are on one volume.
        mount = machine.mount(self.files[0][0].parent) if self.files else None
        self._kind = mount.kind if mount else ""
        self.begin()

    def begin(self) -> None:
        """Start to measure, once the readers are ready."""
        self._storage = self._machine.read_from_storage()
        self._cpu = time.process_time()
        self._begun = time.monotonic()

    def reading(self, read: int) -> Reading:
        """The measurements since `begin`, after `read` bytes were read."""
        seconds, cpu = time.monotonic() - self._begun, time.process_time() - self._cpu
        storage = self._machine.read_from_storage()
        fetched = None if storage is None or self._storage is None else storage - self._storage
        return Reading(split_by_tier(read, fetched, self._still, self._kind), seconds, cpu, self._before)
