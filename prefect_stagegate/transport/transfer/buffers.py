"""Page-aligned buffers of a fixed number, and files that are written from them past the page cache."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading

from prefect_stagegate.cache.ingest import write_all
from prefect_stagegate.transport.transfer_limits import BLOCK


class Buffers:
    """A pool of a fixed number of buffers, each of one part's size, created when they are first needed.

    `size` is the bytes of each, a multiple of 4096.
    """

    def __init__(self, count: int, size: int) -> None:
        self._size = size
        self._count = self._unmade = count
        self._held = self._surplus = 0
        self._free: list[mmap.mmap] = []
        self._lock = threading.Lock()

    @property
    def available(self) -> int:
        """How many can be taken now."""
        return self._unmade + len(self._free)

    def take(self) -> mmap.mmap | None:
        """A buffer, or None when all are in use."""
        with self._lock:
            if self._free:
                return self._free.pop()
            if not self._unmade:
                return None
            self._unmade -= 1
        # Outside of the lock, which others wait for. Its pages are aligned, as direct writes need them.
        return mmap.mmap(-1, self._size)

    def put(self, buffer: mmap.mmap) -> None:
        """Give a buffer back."""
        with self._lock:
            self._free_or_drop(buffer)

    def resize(self, count: int) -> None:
        """Have so many from now on; others are freed as they are given back."""
        with self._lock:
            made = self._count - self._unmade + self._surplus
            self._surplus = max(0, made - count)
            self._count, self._unmade = count, max(0, count - made)
            while self._surplus and self._free:
                self._free.pop()
                self._surplus -= 1

    def _free_or_drop(self, buffer: mmap.mmap) -> None:
        if self._surplus:
            self._surplus -= 1
        else:
            self._free.append(buffer)

    def hold(self, *, urgent: bool) -> bool:
        """Whether a full buffer may wait to be hashed: at most half of them may, and an `urgent` one always."""
        with self._lock:
            if not urgent and 2 * self._held >= self._count:
                return False
            self._held += 1
            return True

    def put_held(self, buffer: mmap.mmap) -> None:
        """Give back a buffer that waited."""
        with self._lock:
            self._held -= 1
            self._free_or_drop(buffer)


class DirectFile:
    """A file that is written past the page cache where the file system allows it, and through it elsewhere.

    Args:
        descriptor: Open for reading and writing; the caller closes it.
        size: The file's final size in bytes, which is reserved now where the file system can.

    Raises:
        OSError: The volume has no room.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        # Before the first byte comes: a full volume ends the download at its start, not at its end.
        _reserve(descriptor, size)
        self._direct = _go_direct(descriptor)

    def write(self, buffer: mmap.mmap, length: int, offset: int) -> None:
        """Write the first `length` bytes of `buffer` at `offset`, a multiple of 4096."""
        if self._direct:
            padded = -(-length // BLOCK) * BLOCK  # `finish` cuts off what is too long
            try:
                write_all(self._descriptor, memoryview(buffer)[:padded], offset)
            except OSError as error:
                # The file system opened the file for direct writes, and refuses this one: go through the page cache.
                if error.errno != errno.EINVAL:
                    raise
                self._leave_direct()
            else:
                return
        write_all(self._descriptor, memoryview(buffer)[:length], offset)

    def read(self, buffer: mmap.mmap, length: int, offset: int) -> int:
        """Read up to `length` bytes at `offset` into `buffer`; returns the number of bytes read."""
        # Direct reads are of whole blocks.
        padded = min(-(-length // BLOCK) * BLOCK, len(buffer))
        return min(os.preadv(self._descriptor, [memoryview(buffer)[:padded]], offset), length)

    def finish(self) -> None:
        """Cut the file to its size and turn direct writes off."""
        self._leave_direct()
        os.ftruncate(self._descriptor, self._size)

    def _leave_direct(self) -> None:
        self._direct = False
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)


def _reserve(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # A file system that can't reserve space reports a full volume at a later write.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(descriptor, size)


def _go_direct(descriptor: int) -> bool:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:
        # tmpfs and some network file systems refuse: then all writes go through the page cache.
        return False
    return True
