"""Verifying blobs and views: hash them again, at a bounded rate, and compare with their names and manifests."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event

from blake3 import blake3

from prefect_stagegate.cache.layout import Layout, explained
from prefect_stagegate.cache.views import sealed_at
from prefect_stagegate.durable import walk_folders
from prefect_stagegate.errors import Cancelled
from prefect_stagegate.model import Entry, Finding
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.units import count_text

READ = 1 << 20
"""Bytes that are read at a time."""
LOOKERS, LOOKS = 8, 1000
"""Threads that look at files, and the files of a turn of each: a network file system takes 0.2 ms for one."""
NOT_IN_VERSION = "the version has no such file"
ADVICE = "Run `stagegate verify --repair`: it fetches the file again."
Read = Callable[[int], None]
"""Called with the size of every piece that was read. May wait, or raise to end the reading."""


class Pace:
    """Limits the rate of reading, and ends it when `cancel` is set.

    `rate` is in bytes a second, on average over about a second; None is no limit. `progress` is called with the bytes,
    too.
    """

    def __init__(self, rate: int | None = None, cancel: Event | None = None, progress: Read = lambda _: None) -> None:
        self._rate, self._progress = rate, progress
        self._cancel = cancel or Event()
        self._due = time.monotonic()
        self.bytes = 0
        """Bytes that were read so far."""

    def __call__(self, size: int) -> None:
        """Count a piece, and wait until the rate allows the next one.

        Raises:
            Cancelled: `cancel` is set.
        """
        self.bytes += size
        self._progress(size)
        wait = 0.0
        if self._rate:
            now = time.monotonic()
            # Time lost on a busy disk is made up for, but one second at most, so that no burst follows a long wait.
            self._due = max(self._due, now - 1) + size / self._rate
            wait = max(0.0, self._due - now)
        if self._cancel.is_set() or (wait and self._cancel.wait(wait)):
            raise Cancelled("The verification was stopped")


@dataclass(frozen=True, slots=True)
class Rot:
    """A blob whose bytes do not hash to its name."""

    digest: str
    """The digest that its name promises."""
    actual: str
    """The digest of its bytes; empty when they can't be read."""
    problem: str
    inode: int
    """The inode of the file that was read: another file may have its name by now."""


def check_blob(layout: Layout, digest: str, read: Read = lambda _: None) -> Rot | None:
    """Hash a blob; None when it is sound, or was collected meanwhile."""
    inode = 0
    try:
        descriptor = open_regular_file(layout.blob_path(digest))
        with os.fdopen(descriptor, "rb", buffering=0):
            # Of the open file: its name may lead to another file before this one is hashed.
            inode = os.fstat(descriptor).st_ino
            actual = _digest_on_disk(descriptor, read)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Rot(digest, "", f"it can't be read: {error.strerror}", inode or inode_of(layout.blob_path(digest)))
    return None if actual == digest else Rot(digest, actual, _differs(actual, digest), inode)


def verify_view(
    view: Path,
    entries: Iterable[Entry],
    layout: Layout,
    *,
    rotten: Mapping[str, Rot],
    read: Read = lambda _: None,
) -> Iterator[tuple[Entry, Finding]]:
    """Check every file of a view, and yield those whose bytes are not the manifest's.

    A file that is a link to its blob was hashed with the blob. Only other files are read: copies, where the volume
    takes no links, and files that somebody put there.

    The caller has checked the blobs of these entries; `rotten` has the rotten ones by digest.
    """
    for entry in entries:
        path = view / entry.path
        inode = inode_of(path)
        rot = rotten.get(entry.digest)
        # The file is a link to the rotten blob, wherever the blob's name leads by now.
        if inode and rot and rot.inode == inode:
            yield entry, Finding(entry.path, rot.problem, ADVICE)
        elif inode and inode == inode_of(layout.blob_path(entry.digest)):
            continue
        elif problem := file_problem(path, entry, read):
            yield entry, Finding(entry.path, problem, ADVICE)


def look_at_view(view: Path, manifest: Manifest) -> Finding | None:
    """The first file of a view that is missing or changed, or that its version has not; None when all look right.

    Nothing is read: each file costs one `stat`, and `LOOKERS` run at a time. Only `verify_view` proves bytes.

    Raises:
        CacheError: A folder of the view can't be read.
    """
    entries, root, sealed = manifest.entries(), str(view), sealed_at(view)
    with ThreadPoolExecutor(LOOKERS, "stagegate-looks") as pool:
        while batches := [batch for _ in range(LOOKERS) if (batch := list(islice(entries, LOOKS)))]:
            if finding := next(filter(None, pool.map(partial(_first_changed, root, sealed), batches)), None):
                return finding
    return next((Finding(path, NOT_IN_VERSION, ADVICE) for path in extra_files(view, manifest)), None)


def _first_changed(root: str, sealed: int, entries: Iterable[Entry]) -> Finding | None:
    for entry in entries:
        try:
            status = os.lstat(f"{root}/{entry.path}")
        except OSError as error:
            return Finding(entry.path, f"it can't be found: {error.strerror}", ADVICE)
        if problem := _form_problem(status, entry):
            return Finding(entry.path, problem, ADVICE)
        if status.st_mtime_ns > sealed:
            return Finding(entry.path, "it was written to after it was stored", ADVICE)
    return None


def _form_problem(status: os.stat_result, entry: Entry) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_size != entry.size:
        return f"it has {count_text(status.st_size, 'byte')}, and the manifest says {entry.size:,}"
    return ""


def extra_files(view: Path, manifest: Manifest, missing: int = 0) -> list[str]:
    """The paths in a view that its version has not, links included; `missing` of the version's own are not there.

    Raises:
        CacheError: A folder of the view can't be read.
    """
    start = len(str(view)) + 1

    def names() -> Iterator[str]:
        for _, entries in walk_folders(view):
            yield from (entry.path[start:] for entry in entries if not entry.is_dir(follow_symlinks=False))

    with explained("list the files of the view", view):
        if sum(1 for _ in names()) == manifest.files - missing:
            return []
        return sorted(set(names()).difference(entry.path for entry in manifest.entries()))


def file_problem(path: Path, entry: Entry, read: Read = lambda _: None) -> str:
    """Say how a file differs from its entry in a manifest; empty when it has exactly the entry's bytes."""
    try:
        if problem := _form_problem(path.lstat(), entry):
            return problem
        with path.open("rb", buffering=0) as file:
            actual = _digest_on_disk(file.fileno(), read)
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    return "" if actual == entry.digest else _differs(actual, entry.digest)


def is_blob(path: str, digest: str) -> bool:
    """Whether a file is read-only and has the bytes of `blake3:<hex>`.

    Raises:
        OSError: It can't be read, or is a symbolic link or no regular file.
    """
    descriptor = open_regular_file(path)
    try:
        # A file that may be written to is no blob: its bytes could change after this look.
        return not stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o222 and _digest(descriptor) == digest
    finally:
        os.close(descriptor)


def open_regular_file(path: str) -> int:
    """Open a regular file without following links, and without waiting when a pipe is in its place.

    Raises:
        OSError: It can't be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return descriptor


def _digest_on_disk(descriptor: int, read: Read) -> str:
    """Hash a file's bytes on the disk."""
    # Before, since bytes in memory say little about the disk; after, since they would displace pages that are in use.
    _forget(descriptor)
    digest = _digest(descriptor, read)
    _forget(descriptor)
    return digest


def _forget(descriptor: int) -> None:
    """Drop a file from the page cache, except for mapped and unwritten pages. Ignores a refusal."""
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
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_ino if stat.S_ISREG(status.st_mode) else 0


def _differs(actual: str, digest: str) -> str:
    return f"its bytes hash to {actual}, and the manifest says {digest}"
