"""Reading a version's files cold, as a job does on its first pass over data that don't fit into memory.

What the page cache holds of them is dropped first, so that what is measured is the volume.
"""

from __future__ import annotations

import errno
import heapq
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

from prefect_stagegate.errors import CacheError
from prefect_stagegate.model import Entry
from prefect_stagegate.readiness.node.machine import Machine
from prefect_stagegate.readiness.node.pagecache import DAMAGED
from prefect_stagegate.readiness.node.tiers import Reading, TierMeter

BLOCK = 2**20
"""Bytes of one read; a multiple of what direct reads must be aligned to."""
DROPPING = 0.5
"""The part of the time that dropping files from the page cache may take: opening many on a network takes its time."""
GRACE = 10.0
"""Seconds after its time that a read may take to come back."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one file that are read in one go."""

    file: Path
    offset: int
    length: int


def sample(view: Path, entries: Iterable[Entry], *, files: int, limit: int, seed: str) -> tuple[tuple[Path, int], ...]:
    """Some of a version's files with their sizes: which ones, the seed and their paths decide, not their order.

    Args:
        view: The version's folder.
        entries: Its manifest; read once, in bounded memory.
        files: How many files at most.
        limit: How many bytes at most; of the last file only the beginning may be taken.
        seed: Another one gives other files.
    """
    chosen = heapq.nsmallest(
        files, (entry for entry in entries if entry.size), key=lambda entry: _rank(seed, entry.path)
    )
    taken: list[tuple[Path, int]] = []
    for entry in chosen:
        size = min(entry.size, limit)
        if size <= 0:
            break
        taken.append((view / entry.path, size))
        limit -= size
    return tuple(taken)


def _rank(seed: str, path: str) -> bytes:
    return blake2b(f"{seed}\0{path}".encode(errors="surrogateescape"), digest_size=8).digest()


def cut(files: Iterable[tuple[Path, int]], length: int) -> Iterator[Piece]:
    """Cut files into pieces of at most `length` bytes, in order."""
    for file, size in files:
        for offset in range(0, size, length):
            yield Piece(file, offset, min(length, size - offset))


def read_cold(files: Sequence[tuple[Path, int]], *, readers: int, seconds: float, machine: Machine) -> Reading:
    """Read files with several threads, past the page cache where the file system allows it, until a time is over.

    Raises:
        CacheError: A file can't be read, or a read does not come back.
    """
    begun = time.monotonic()
    deadline = begun + seconds
    meter = TierMeter(files, begun + DROPPING * seconds, machine)
    pieces, lock = cut(meter.files, BLOCK), threading.Lock()
    counts = [0] * readers

    def work(number: int, reader: Reader) -> None:
        while time.monotonic() < deadline:
            with lock:
                piece = next(pieces, None)
            if piece is None:
                return
            counts[number] += reader.read(piece)

    jobs = [partial(work, number, Reader(direct=True)) for number in range(readers)]
    run_all(jobs, deadline + GRACE, meter.begin)
    return meter.reading(sum(counts))


def run_all(jobs: Sequence[Callable[[], None]], until: float, begin: Callable[[], None]) -> None:
    """Run every job in a thread of its own, and wait for them till a moment of the monotonic clock.

    Args:
        jobs: What the threads do, once all of them are there.
        until: When to give up.
        begin: Called just before they do it.

    Raises:
        CacheError: One of them failed, or didn't end. What hangs is left behind, for a read can't be stopped.
    """
    failed: list[CacheError] = []
    ready = threading.Event()

    def guarded(job: Callable[[], None]) -> None:
        ready.wait()
        try:
            job()
        except CacheError as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    try:
        for thread in threads:
            thread.start()
        begin()
    finally:
        ready.set()
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    if failed:
        raise failed[0]
    if any(thread.is_alive() for thread in threads):
        raise CacheError(
            "A read of the cache's volume does not come back", hint="Look at the volume: dmesg; iostat -x 1"
        )


class Reader:
    """Reads pieces into one buffer, again and again.

    Args:
        direct: Whether to go past the page cache (O_DIRECT) where the file system allows it.
    """

    def __init__(self, *, direct: bool) -> None:
        self._buffer = mmap.mmap(-1, BLOCK)
        self._flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_DIRECT if direct else 0)

    def read(self, piece: Piece) -> int:
        """Read a piece; returns how many bytes there were, no more than its length.

        Raises:
            CacheError: The file can't be read.
        """
        try:
            return self._read(piece)
        except OSError as error:
            if error.errno == errno.EINVAL and self._flags & os.O_DIRECT:
                self._flags &= ~os.O_DIRECT
                return self.read(piece)
            raise CacheError(f"{piece.file} can't be read: {error.strerror}", hint=DAMAGED) from error

    def _read(self, piece: Piece) -> int:
        descriptor = os.open(piece.file, self._flags)
        try:
            done = 0
            while done < piece.length:
                room = BLOCK if self._flags & os.O_DIRECT else min(BLOCK, piece.length - done)
                count = os.preadv(descriptor, [memoryview(self._buffer)[:room]], piece.offset + done)
                if not count:
                    break
                done += count
            return min(done, piece.length)
        finally:
            os.close(descriptor)
