"""Proving again that what lies in a cache is what its names say: by hashing, at a bounded rate."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from blake3 import blake3

from prefect_stagegate.cache.layout import Layout
from prefect_stagegate.errors import Cancelled
from prefect_stagegate.model import Entry, Finding
from prefect_stagegate.units import count_text

READ = 1 << 20
"""Bytes that are read at a time."""
ADVICE = "Run `stagegate verify --repair`: it fetches the file again."
Read = Callable[[int], None]
"""Told of every piece that was read, by its bytes; it may wait, or raise to end the reading."""


class Pace:
    """Keeps reading to a rate, and ends it when that is asked for.

    Args:
        rate: Bytes a second, on average over about a second; None for no limit.
        cancel: Set it to stop in time.
        told: Told of the bytes too, for progress.
    """

    def __init__(self, rate: int | None = None, cancel: Event | None = None, told: Read = lambda _: None) -> None:
        self._rate, self._told = rate, told
        self._cancel = cancel or Event()
        self._due = time.monotonic()
        self.bytes = 0
        """What was read so far."""

    def __call__(self, size: int) -> None:
        """Count a piece, and wait for as long as it should have taken.

        Raises:
            Cancelled: It is to end.
        """
        self.bytes += size
        self._told(size)
        wait = 0.0
        if self._rate:
            now = time.monotonic()
            self._due = max(self._due, now - 1) + size / self._rate  # what a busy disk lost is made up for a second
            wait = max(0.0, self._due - now)
        if self._cancel.is_set() or (wait and self._cancel.wait(wait)):
            raise Cancelled("The verification was stopped")


@dataclass(frozen=True, slots=True)
class Rot:
    """A blob that is not what its name says."""

    digest: str
    """What its name says."""
    found: str
    """What its bytes hash to; empty when they can't be read."""
    problem: str
    inode: int
    """Of the file that was read: another one may have its name by now."""


def check_blob(layout: Layout, digest: str, read: Read = lambda _: None) -> Rot | None:
    """Hash a blob; None when it is sound, or a collection took it."""
    inode = 0
    try:
        descriptor = _open_file(layout.blob_path(digest))
        with os.fdopen(descriptor, "rb", buffering=0):
            inode = os.fstat(descriptor).st_ino
            found = _digest_on_disk(descriptor, read)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Rot(digest, "", f"it can't be read: {error.strerror}", inode or inode_of(layout.blob_path(digest)))
    return None if found == digest else Rot(digest, found, _differs(found, digest), inode)


def verify_view(
    view: Path,
    entries: Iterable[Entry],
    layout: Layout,
    *,
    rotten: Mapping[str, Rot] | None = None,
    read: Read = lambda _: None,
) -> Iterator[tuple[Entry, Finding]]:
    """Look at every file of a view, and give those that don't hold what the manifest names.

    A file that is a link to its blob was hashed with the blob, so only others are read: copies, where the volume
    takes no links, and what somebody put there.

    Args:
        view: The version's folder.
        entries: The version's manifest, or a part of it.
        layout: The cache. Its blobs of these entries were checked.
        rotten: What that found, by digest.
        read: Told of every piece that is read.
    """
    rotten = rotten or {}
    for entry in entries:
        path = view / entry.path
        held = inode_of(path)
        rot = rotten.get(entry.digest)
        if held and rot and rot.inode == held:
            yield entry, Finding(entry.path, rot.problem, ADVICE)
        elif held and held == inode_of(layout.blob_path(entry.digest)):
            continue
        elif problem := file_problem(path, entry, read):
            yield entry, Finding(entry.path, problem, ADVICE)


def file_problem(path: Path, entry: Entry, read: Read = lambda _: None) -> str:
    """Say how a file differs from what a manifest names; empty when it holds exactly the entry's bytes."""
    try:
        status = path.lstat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            return "it is no file of its own"
        if size != entry.size:
            return f"it has {count_text(size, 'byte')}, and the manifest says {entry.size:,}"
        with path.open("rb", buffering=0) as file:
            found = _digest_on_disk(file.fileno(), read)
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    return "" if found == entry.digest else _differs(found, entry.digest)


def is_blob(path: str, digest: str) -> bool:
    """Whether a file has the bytes of `blake3:<hex>`, and is read-only and no link to elsewhere.

    Raises:
        OSError: It can't be read.
    """
    descriptor = _open_file(path)
    try:
        return not stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o222 and _digest(descriptor) == digest
    finally:
        os.close(descriptor)


def _open_file(path: str) -> int:
    """Open a regular file that is no link; a pipe in its place would let its reader wait.

    Raises:
        OSError: It can't be opened, or is something else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def _digest_on_disk(descriptor: int, read: Read) -> str:
    """Hash what the disk has: what memory has of it says little, and would take the room of what is in use."""
    _forget(descriptor)
    found = _digest(descriptor, read)
    _forget(descriptor)
    return found


def _forget(descriptor: int) -> None:
    """Take a file out of memory, but for what is mapped or not written yet; where that is refused, it stays."""
    with suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _digest(descriptor: int, read: Read = lambda _: None) -> str:
    hasher = blake3()
    while chunk := os.read(descriptor, READ):
        hasher.update(chunk)
        read(len(chunk))
    return f"blake3:{hasher.hexdigest()}"


def inode_of(path: Path | str) -> int:
    """A regular file's inode; 0 when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_ino if stat.S_ISREG(found.st_mode) else 0


def _differs(found: str, digest: str) -> str:
    return f"its bytes hash to {found}, and the manifest says {digest}"
