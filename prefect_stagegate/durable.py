"""Files and folders of the cache and of catalogs: read with a bound, walked, and written to survive a power cut."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import weakref
from collections.abc import Iterator
from enum import StrEnum
from itertools import takewhile
from pathlib import Path

from prefect_stagegate.units import count_text

UNKNOWN_BOOT = "unknown"
MAX_FOLDER_DEPTH = 300
"""The deepest nesting of folders. Paths in a dataset have at most 256 segments, and few folders above them."""


class Durability(StrEnum):
    """When the contents of a cache survive a power cut."""

    FULL = "full"
    """Each blob before it can be seen, and each version before it appears."""
    BATCH = "batch"
    """Each version before it appears; blobs of an interrupted staging may be fetched again."""
    NONE = "none"
    """Never: for volumes that don't outlive the machine anyway. After a power cut, throw the cache away."""


# For syncfs(2), which Python's standard library lacks.
_libc = ctypes.CDLL(None, use_errno=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file, and make its bytes durable. Its name becomes so by `sync_folder`."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        # After the flush, since fsync knows only what left Python's own buffer.
        os.fsync(file.fileno())


class NotARecord(OSError):
    """A file in a record's place that is larger than any record, so that no writer of records left it there."""

    def __str__(self) -> str:
        return str(self.strerror)


def read_file(path: Path, most: int, *, end: bool = False) -> bytes:
    """Read a regular file of at most `most` bytes; with `end`, only so many bytes at the end of any file.

    Raises:
        NotARecord: It is larger.
        OSError: It can't be read, or is a link or no regular file.
    """
    # Non-blocking, since the open of a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if end:
            file.seek(max(0, status.st_size - most))
        elif status.st_size > most:
            raise too_large(status.st_size, most)
        return file.read(min(most, status.st_size))


def too_large(size: int, most: int) -> NotARecord:
    """The error for a record of `size` bytes, of which there can be at most `most`."""
    return NotARecord(errno.EOVERFLOW, f"it has {count_text(size, 'byte')}, and such a record has at most {most:,}")


def walk_folders(
    root: Path, *, skip: type[OSError] = FileNotFoundError
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each folder of a tree with its entries, parents before children. Links are not followed.

    Args:
        root: The folder to begin with.
        skip: Errors to ignore for folders below the root, which may have been removed meanwhile.

    Raises:
        OSError: A folder can't be read, or the tree is deeper than any that this package makes.
    """
    folders = [(os.fspath(root), 0)]
    while folders:
        folder, depth = folders.pop()
        if depth > MAX_FOLDER_DEPTH:
            message = f"{root} holds folders in folders deeper than {MAX_FOLDER_DEPTH} names, and no dataset does"
            raise OSError(errno.ENAMETOOLONG, message, folder)
        try:
            with os.scandir(folder) as scan:
                # Read to its end and closed, so that a deep tree does not keep a descriptor open for each level.
                entries = list(scan)
        except skip:
            if depth:
                continue
            raise
        yield folder, entries
        folders += [(entry.path, depth + 1) for entry in entries if entry.is_dir(follow_symlinks=False)]


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its missing parents, and make their names durable."""
    missing = takewhile(lambda above: not above.exists(), (folder, *folder.parents))
    # The outermost first: a name is durable only if those above it are.
    for above in reversed(list(missing)):
        above.mkdir(mode=mode, exist_ok=True)
        sync_folder(above.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_volume(folder: Path) -> None:
    """Make everything durable that was written to the folder's volume: one call instead of an fsync for each file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _syncfs(descriptor, folder)
    finally:
        os.close(descriptor)


class OpenVolume:
    """A folder's volume, held open so that `sync` reports every write that failed since this object was made.

    The kernel reports a failure once to each open file. A folder that is opened only for the sync misses failures that
    were reported to another process before.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def sync(self) -> None:
        """Make everything that was written to the volume durable.

        Raises:
            OSError: Bytes that some process wrote are lost. The file may look whole until it leaves memory.
        """
        _syncfs(self._descriptor, self._folder)


def boot_id() -> str:
    """The id of this boot of the machine; `unknown` where the system doesn't tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return UNKNOWN_BOOT


def _syncfs(descriptor: int, folder: Path) -> None:
    if _libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
