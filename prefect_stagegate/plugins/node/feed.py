"""Read a version's files cold, as a job does on its first pass over data that don't fit into memory.

The files are dropped from the page cache first, so that the volume is measured and not the memory.
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
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.node.pagecache import DAMAGED
from prefect_stagegate.plugins.node.tiers import Reading, TierMeter

BLOCK = 2**20
"""Bytes of one read; a multiple of what direct reads must be aligned to."""
DROPPING = 0.5
"""The share of the time that dropping files from the page cache may take: opening many over a network is slow."""
GRACE = 10.0
"""Seconds after the deadline until a read that has not returned counts as hung."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of one file that is read at once."""

    file: Path
    offset: int
    length: int


def sample(view: Path, entries: Iterable[Entry], *, files: int, limit: int, seed: str) -> tuple[tuple[Path, int], ...]:
    """Choose some of a version's files, each with the bytes to read. Seed and paths decide which, not their order.

    Args:
        view: The version's folder.
        entries: Its manifest; read once, in bounded memory.
        files: How many files at most.
        limit: How many bytes at most; of the last file only the beginning may be taken.
        seed: Another seed gives other files.
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
    """Read files with several threads until the time is over, past the page cache where the file system allows it.

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
    """Run every job in a thread of its own, and wait for all of them.

    `begin` is called when all threads have started, just before the jobs run; `until` is by the monotonic clock.

    Raises:
        CacheError: A job failed or did not end. Its thread is left behind, for a hung read can't be stopped.
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
        # Called only when all threads stand ready, so that starting them is not measured.
        begin()
    finally:
        ready.set()  # also after an error: else threads that started would wait forever
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    if failed:
        raise failed[0]
    if any(thread.is_alive() for thread in threads):
        raise CacheError("A read from the cache's volume hangs", hint="Look at the volume: dmesg; iostat -x 1")


class Reader:
    """Reads pieces into one buffer that it reuses.

    Args:
        direct: Whether to go past the page cache (O_DIRECT) where the file system allows it.
    """

    def __init__(self, *, direct: bool) -> None:
        self._buffer = mmap.mmap(-1, BLOCK)
        self._flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_DIRECT if direct else 0)

    def read(self, piece: Piece) -> int:
        """Read a piece and return the number of bytes, at most its length.

        Raises:
            CacheError: The file can't be read.
        """
        try:
            return self._read(piece)
        except OSError as error:
            # The file system refuses direct reads: read through the page cache from now on.
            if error.errno == errno.EINVAL and self._flags & os.O_DIRECT:
                self._flags &= ~os.O_DIRECT
                return self.read(piece)
            raise CacheError(f"{piece.file} can't be read: {error.strerror}", hint=DAMAGED) from error

    def _read(self, piece: Piece) -> int:
        descriptor = os.open(piece.file, self._flags)
        try:
            done = 0
            while done < piece.length:
                # A direct read must have an aligned length, so it may reach past the end of the piece.
                room = BLOCK if self._flags & os.O_DIRECT else min(BLOCK, piece.length - done)
                count = os.preadv(descriptor, [memoryview(self._buffer)[:room]], piece.offset + done)
                if not count:
                    break
                done += count
            return min(done, piece.length)
        finally:
            os.close(descriptor)
