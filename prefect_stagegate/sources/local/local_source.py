"""Local directories: disks, NFS and other mounted volumes, read natively.

Symbolic links are followed where they lead inside the source's directory. A link that leads out of it is an error that
names it: a delivery must not pull in other files of the machine. So are pipes, sockets and devices.

A directory is entered once. Links to directories are followed last, and only to directories that the walk did not enter
by their real path. A link to a directory above it is left out. Any other second path to a directory is an error.

Of an offline file only name and size lie on the disk: AFM, Lustre HSM and tape systems recall the rest when it is read.
The read blocks until then, and nothing can interrupt it. So a thread that can be abandoned waits for the first byte,
for a bounded number of files at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from operator import attrgetter
from pathlib import Path
from threading import Condition
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from prefect_stagegate.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    StagegateError,
    UsageError,
)
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.mounts import NETWORK, mount_of
from prefect_stagegate.sources.adapter import BaseSource, Wanted, everything
from prefect_stagegate.sources.selection.globs import by_path, enters, excludes
from prefect_stagegate.sources.terms import DEFAULT_TERMS, Terms
from prefect_stagegate.sources.walk import Walk, require_regular
from prefect_stagegate.units import format_duration, parse_duration

AT_ONCE = 4
"""Default of the option `recalls`: files that are recalled at a time."""
TIMEOUT = "1h"
"""Default of the option `recall_timeout`: how long the recall of one file may take."""
LOCAL_READERS = 2
"""Threads that read from a local disk. More threads would only compete for the interpreter's lock."""
CHUNK = 1 << 20
"""Most bytes that one system call reads."""


def is_away(status: os.stat_result) -> bool:
    """Whether none of a file's bytes lie on the disk. A sparse file of holes looks the same, and is read at once."""
    return status.st_size > 0 and status.st_blocks == 0


class Recalls:
    """The recalls of one source: a queue of offline files, in the order of their paths.

    Args:
        options: `recalls`, the most at a time, and `recall_timeout`, such as `4h`, for each file.
        url: For errors.

    Raises:
        UsageError: An option can't be used.
    """

    def __init__(self, options: Mapping[str, Any], *, url: str) -> None:
        self._url = url
        at_once = options.get("recalls", AT_ONCE)
        if not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
            raise UsageError(f"The option recalls is {at_once!r}", hint="It is a number from 1.", source=url)
        try:
            self._timeout: timedelta = parse_duration(str(options.get("recall_timeout", TIMEOUT)))
        except ValueError as error:
            raise UsageError(f"The option recall_timeout: {error}", hint="It looks like 4h.", source=url) from error
        self._at_once = at_once
        self._changed = Condition()
        self._busy = 0
        self.waiting: list[str] = []
        """A heap of the keys that wait for their turn. The first by path is next: tapes read neighbours fastest."""

    def wait(self, path: Path, key: str) -> None:
        """Make the file system recall a file, and return when its first byte is on the disk.

        Raises:
            SourceError: The recall took too long.
            OSError: It can't be read.
        """
        from prefect_stagegate.sources.wrappers.timeout import call_with_timeout

        def read_first_byte() -> None:
            with path.open("rb", buffering=0) as file:
                file.read(1)

        with self._turn(key):
            # An abandoned thread stays blocked in its read until the file system answers.
            try:
                call_with_timeout(read_first_byte, self._timeout.total_seconds())
            except TimeoutError as error:
                raise SourceError(
                    f"The file system did not recall the offline file within {format_duration(self._timeout)}",
                    hint="Look up where it is (mmlsattr -L, lfs hsm_state), recall it (mmafmctl "
                    "… prefetch, lfs hsm_restore) and stage again, or raise the option `recall_timeout`.",
                    source=self._url,
                    object=key,
                ) from error

    @contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        """Wait until a slot is free and no key that sorts earlier waits; hold the slot for the block."""
        with self._changed:
            heappush(self.waiting, key)
            self._changed.wait_for(lambda: self._busy < self._at_once and self.waiting[0] == key)
            heappop(self.waiting)
            self._busy += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()


def local_path(url: str) -> Path:
    """The path that a `file://` URL or a plain path names.

    Raises:
        UsageError: The URL names another host.
    """
    if "://" not in url:
        return Path(url).expanduser().absolute()
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{url!r} names the host {parts.netloc!r}", hint="A local path looks like file:///mnt/nas/.")
    return Path(unquote(url.split("://", 1)[1].removeprefix("localhost")))


class FileSource(BaseSource):
    """A directory, or one file.

    The pin is the modification time in nanoseconds with the inode: weak, because a program may set times back. It is
    compared before and after each read, so that a change during the read is an error.

    Of the options only those of `Recalls` have an effect, and of the terms the bound on entries.

    Raises:
        UsageError: The URL names another host, or an option can't be used.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any] = MappingProxyType({}), terms: Terms = DEFAULT_TERMS
    ) -> None:
        self.url = url
        self._most = terms.most
        self.recalls = Recalls(options, url=url)
        path = local_path(url)
        self.identity = f"file://{path}"
        # Looked up once: keys must not change their meaning while the source is open.
        self._single = path.name if path.is_file() else ""
        self._root = path.parent if self._single else path
        self._folder = str(self._root)
        self._real_root = os.path.realpath(self._root)
        # Network file systems gain from many readers.
        kind = mount_of(self._root)[0]
        if kind not in NETWORK and not kind.startswith("fuse"):
            self.readers = LOCAL_READERS

    def credential_life(self) -> CredentialLife:
        """None are needed: the operating system decides by the process's user."""
        return CredentialLife("none", "a local folder")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted file below the directory, as it is walked."""
        try:
            if not self._single:
                yield from self._walk(wanted)
            elif wanted(self._single):
                yield self.find(self._single)
        except (StagegateError, MemoryError):
            raise
        except Exception as error:
            raise self._explained(error) from error

    def find(self, key: str) -> SourceObject:
        """The file as it is now."""
        try:
            return _object(key, (self._root / key).stat())
        except OSError as error:
            raise self._explained(error, key) from error

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Read from the file into the buffer. Waits for the recall of an offline file."""
        with self._opened(listed) as descriptor:
            while buffer:
                count = os.preadv(descriptor, [buffer[:CHUNK]], start)
                if not count:
                    raise self._changed(listed)
                buffer, start = buffer[count:], start + count

    @contextmanager
    def _opened(self, listed: SourceObject) -> Iterator[int]:
        """Open the file for a block that reads it; compare its pin before and after."""
        path = f"{self._folder}/{listed.key}"  # a `Path` for each file would cost as much as opening it
        try:
            status = os.stat(path)  # noqa: PTH116
            self._require_pin(status, listed)
            if is_away(status):
                # Here, because nothing could interrupt the read below while the file system recalls the file.
                self.recalls.wait(Path(path), listed.key)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield descriptor
                # By the open file: another one may have its path by now.
                self._require_pin(os.fstat(descriptor), listed)
            finally:
                os.close(descriptor)
        except (StagegateError, MemoryError):
            raise
        except Exception as error:
            raise self._explained(error, listed.key) from error

    def _require_pin(self, status: os.stat_result, listed: SourceObject) -> None:
        if status.st_size != listed.size or _pin(status) != listed.pin:
            raise self._changed(listed)

    def _walk(self, wanted: Wanted) -> Iterator[SourceObject]:
        """Walk the directory, then the directories that links lead to."""
        if not self._root.is_dir():
            raise SourceError(
                "There is no such directory", hint="Check its name, and that it is mounted.", source=self.url
            )
        walk, links = Walk(self.url, self._most), deque([""])
        # Links come last, so that a directory is listed by its real path where it has one inside the source.
        while links:
            yield from self._tree(links.popleft(), wanted, walk, links)
        walk.end()

    def _tree(self, top: str, wanted: Wanted, walk: Walk, links: deque[str]) -> Iterator[SourceObject]:
        """The wanted files below a directory. Links to further directories are added to `links`."""
        directories = [top]
        while directories:
            key = directories.pop()
            if not self._is_new(key, wanted, walk):
                continue
            below: list[str] = []
            try:
                for entry in self._entries(key, walk):
                    path = key + entry.name
                    if entry.is_symlink():
                        yield from self._linked(entry, path, wanted, walk, links)
                    elif entry.is_dir():
                        below.append(path + "/")
                    elif wanted(path):
                        yield self._file(entry, path)
            except OSError as error:  # `is_dir` calls stat where the file system gives no kinds with the names
                raise self._explained(error, key) from error
            # Reversed, because the stack is taken from its end.
            directories += filter(partial(enters, wanted), reversed(below))

    def _is_new(self, key: str, wanted: Wanted, walk: Walk) -> bool:
        """Whether the walk enters a directory for the first time."""
        path = self._root / key
        try:
            status = path.stat()
        except OSError as error:
            raise self._explained(error, key) from error
        if walk.enter_once((status.st_dev, status.st_ino), key):
            return True
        # The inode is known: some other path led here before.
        real, above = os.path.realpath(path), os.path.realpath(path.parent)
        walk.note_second_path(key, real, self._real_root, above, by_path=by_path(wanted, key))
        return False

    def _entries(self, key: str, walk: Walk) -> Sequence[os.DirEntry[str]]:
        """The entries of a directory, sorted by name."""
        try:
            with os.scandir(self._root / key) as scan:
                entries = list(islice(scan, walk.left + 1))  # one more than permitted, so that `count` refuses
        except OSError as error:
            raise self._explained(error, key) from error
        walk.count(len(entries), key)
        return sorted(entries, key=attrgetter("name"))

    def _linked(
        self, entry: os.DirEntry[str], key: str, wanted: Wanted, walk: Walk, links: deque[str]
    ) -> Iterator[SourceObject]:
        """The file that a link leads to, if any; a link to a directory is added to `links`."""
        # An excluded link is not even examined: it may be broken, or lead out of the source.
        as_file, as_folder = wanted(key), enters(wanted, key + "/")
        if excludes(wanted, key):
            return
        try:
            is_folder = stat.S_ISDIR(os.stat(entry.path).st_mode)  # noqa: PTH116
        except OSError as error:
            # A broken link is an error only where a file of its name is wanted.
            if as_file:
                raise self._explained(error, key) from error
            return
        if not (as_folder if is_folder else as_file):
            return
        walk.require_inside(key, os.path.realpath(entry.path), self._real_root)
        if is_folder:
            links.append(key + "/")
        else:
            yield self._file(entry, key)

    def _file(self, entry: os.DirEntry[str], key: str) -> SourceObject:
        try:
            status = entry.stat()
        except OSError as error:
            raise self._explained(error, key) from error
        require_regular(status.st_mode, key, self.url)
        return _object(key, status)

    def _changed(self, listed: SourceObject) -> ObjectChanged:
        return ObjectChanged("The file changed while it was read", source=self.url, object=listed.key)

    def _explained(self, error: Exception, key: str = "") -> SourceError:
        if not isinstance(error, OSError):
            from prefect_stagegate.sources.wrappers.boundary import adapter_failed

            return adapter_failed(error, f"{__name__}.{type(self).__name__}", source=self.url, object=key)
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return ObjectVanished("The file is gone", source=self.url, object=key)
        if error.errno == errno.ELOOP:
            hint = "Leave it out by `exclude:`, or remove it."
            return SourceError(f"The symbolic link {key!r} leads to itself", hint=hint, source=self.url, object=key)
        if isinstance(error, PermissionError):
            hint = "Give this user the right to read it."
            return AccessDenied("Access is denied", hint=hint, source=self.url, object=key)
        return SourceUnavailable(f"The file can't be read: {error.strerror}", source=self.url, object=key)


def _pin(status: os.stat_result) -> Pin:
    return Pin("mtime", f"{status.st_mtime_ns}:{status.st_ino}", "weak")


def _object(key: str, status: os.stat_result) -> SourceObject:
    return SourceObject(key, status.st_size, _pin(status), status.st_mtime, (), "", is_away(status))
