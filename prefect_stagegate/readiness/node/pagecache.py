"""What the page cache holds of a file, and how to make it forget."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_stagegate.errors import CacheError

DAMAGED = "Look for damage, and bring it back: stagegate verify"
_libc = ctypes.CDLL(None, use_errno=True)


def cached(file: Path, size: int) -> int:
    """How many of a file's first `size` bytes the page cache holds, in whole pages.

    Linux tells only who owns the file or may write to it; for others all of it counts as held.
    """
    pages = -(-size // mmap.PAGESIZE)
    with opened_file(file) as descriptor, mmap.mmap(descriptor, size, mmap.MAP_PRIVATE) as mapped:
        there = (ctypes.c_ubyte * pages)()
        first = ctypes.c_char.from_buffer(mapped)
        failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), there)
        del first  # else the mapping could not be closed
    return size if failed else min(sum(page & 1 for page in there) * mmap.PAGESIZE, size)


def forget(file: Path, size: int) -> int:
    """Drop a file from the page cache; returns how many of its first `size` bytes were there.

    The whole file, since Linux keeps what reaches over the end of a range in one large folio.
    """
    before = cached(file, size)
    with opened_file(file) as descriptor:
        if before:
            os.fdatasync(descriptor)  # pages that are not written yet can't be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return before


@contextmanager
def opened_file(file: Path) -> Iterator[int]:
    """A descriptor of a file, for reading.

    Raises:
        CacheError: It can't be opened.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise CacheError(f"{file} can't be read: {error.strerror}", hint=DAMAGED) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
