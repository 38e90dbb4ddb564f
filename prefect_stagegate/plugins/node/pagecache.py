"""Measure how much of a file the page cache holds, and drop a file from it."""

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

    Linux answers only processes that own the file or may write to it. For others the whole file counts as cached.
    """
    pages = -(-size // mmap.PAGESIZE)
    with opened_file(file) as descriptor, mmap.mmap(descriptor, size, mmap.MAP_PRIVATE) as mapped:
        resident = (ctypes.c_ubyte * pages)()
        first = ctypes.c_char.from_buffer(mapped)
        failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), resident)
        del first  # a mapping with an exported buffer can't be closed
    return size if failed else min(sum(page & 1 for page in resident) * mmap.PAGESIZE, size)


def forget(file: Path, size: int) -> int:
    """Drop a file from the page cache, and return how many of its first `size` bytes it held.

    The whole file is dropped: of a range, Linux would keep a large folio that reaches past its end.
    """
    before = cached(file, size)
    with opened_file(file) as descriptor:
        if before:
            os.fdatasync(descriptor)  # the kernel does not drop pages that are still to be written
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return before


@contextmanager
def opened_file(file: Path) -> Iterator[int]:
    """Open a file for reading and yield its descriptor. Follows no symbolic link.

    Raises:
        CacheError: The file can't be opened.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise CacheError(f"{file} can't be read: {error.strerror}", hint=DAMAGED) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
