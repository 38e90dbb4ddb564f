"""Local directories: disks, NFS and other mounted volumes, read natively.

Symbolic links are followed where they lead inside the source's directory, and refused by name where they lead out of
it: a delivery must not pull in what lies elsewhere on the machine. Pipes, sockets and devices are refused by name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from prefect_stagegate.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    UsageError,
)
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.sources.base import BaseSource, Wanted, everything
from prefect_stagegate.sources.recalls import Recalls, is_away

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK = 1 << 20
"""Bytes that are read at a time."""


def local_path(url: str) -> Path:
    """The path of a `file://` URL, or of a plain path.

    Raises:
        UsageError: The URL names another host.
    """
    if "://" not in url:
        return Path(url).expanduser().absolute()
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{url!r} names the host {parts.netloc!r}", hint="A local path looks like file:///mnt/nas/.")
    return Path(unquote(url.split("://", 1)[1].removeprefix("localhost")))


class _Folder(NamedTuple):
    """A directory that is being walked."""

    key: str
    """With a slash at its end; empty for the source's own."""
    above: tuple[str, ...]
    """The real paths of it and of those that lead to it: a link back to one ends there."""


class FileSource(BaseSource):
    """A directory, or one file.

    The pin is the modification time in nanoseconds with the inode: weak, because a program may set times back. It is
    compared before and after each read, so that a file that changes meanwhile is found.

    Args:
        url: `file:///mnt/nas/flights/` or a path.
        options: Those of `Recalls`; others mean nothing here.

    Raises:
        UsageError: The URL names another host, or an option can't be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.url = url
        self.recalls = Recalls(options, url=url)
        path = local_path(url)
        self.identity = f"file://{path}"
        self._single = path.name if path.is_file() else ""
        self._root = path.parent if self._single else path
        self._folder = str(self._root)
        self._real_root = os.path.realpath(self._root)

    def credential_life(self) -> CredentialLife:
        """None are needed: the file system knows who we are."""
        return CredentialLife("none", "a local folder")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted file below the directory, as it is walked."""
        if self._single:
            if wanted(self._single):
                yield self.find(self._single)
            return
        if not self._root.is_dir():
            raise SourceError("There is no such directory", hint="Check that it is mounted.", source=self.url)
        yield from self._walk(wanted)

    def find(self, key: str) -> SourceObject:
        """The file as it is now."""
        try:
            return _object(key, (self._root / key).stat())
        except OSError as error:
            raise self._explained(error, key) from error

    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """The bytes. What is kept elsewhere is waited for."""
        with self._opened(listed) as descriptor:
            while start < end:
                chunk = os.pread(descriptor, min(CHUNK, end - start), start)
                start += self._some(len(chunk), listed)
                yield chunk

    def fill(self, listed: SourceObject, start: int, end: int, buffer: memoryview) -> Iterator[int]:
        """The same from the file into the buffer."""
        with self._opened(listed) as descriptor:
            position, count = 0, end - start
            while position < count:
                came = os.preadv(descriptor, [buffer[position : min(position + CHUNK, count)]], start + position)
                position += self._some(came, listed)
                yield came

    @contextmanager
    def _opened(self, listed: SourceObject) -> Iterator[int]:
        """The file's descriptor, for a block that reads it; the file is looked at before and after."""
        path = f"{self._folder}/{listed.key}"  # a `Path` for each file would cost as much as opening it
        try:
            found = os.stat(path)  # noqa: PTH116
            self._check(found, listed)
            if is_away(found):
                self.recalls.wait(Path(path), listed.key)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield descriptor
                self._check(os.fstat(descriptor), listed)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._explained(error, listed.key) from error

    def _some(self, count: int, listed: SourceObject) -> int:
        if not count:
            raise self._changed(listed)
        return count

    def _check(self, found: os.stat_result, listed: SourceObject) -> None:
        if found.st_size != listed.size or _pin(found) != listed.pin:
            raise self._changed(listed)

    def _walk(self, wanted: Wanted) -> Iterator[SourceObject]:
        """Walk the directory, however deep it is: a call within a call for each folder would come to an end."""
        open_folders = [self._entries("", (self._real_root,))]
        while open_folders:
            for folder, entry in open_folders[-1]:
                key = folder.key + entry.name
                if entry.is_dir():
                    if entered := self._enter(entry, key, folder.above, wanted):
                        open_folders.append(entered)
                        break
                elif wanted(key):
                    yield self._file(entry, key)
            else:
                open_folders.pop()

    def _entries(self, key: str, above: tuple[str, ...]) -> Iterator[tuple[_Folder, os.DirEntry[str]]]:
        """Read one directory; `above` are the real paths of it and of those that lead to it."""
        try:
            with os.scandir(self._root / key) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise self._explained(error, key) from error
        return zip(repeat(_Folder(key, above)), found)

    def _enter(
        self, entry: os.DirEntry[str], key: str, above: tuple[str, ...], wanted: Wanted
    ) -> Iterator[tuple[_Folder, os.DirEntry[str]]] | None:
        """Read a directory in another; None for a link back to one that leads here, or that nobody wants."""
        if not entry.is_symlink():
            return self._entries(key + "/", (*above, os.path.join(above[-1], entry.name)))  # noqa: PTH118
        real = os.path.realpath(entry.path)
        if real in above or not wanted(key + "/"):
            return None
        self._keep_inside(real, key)
        return self._entries(key + "/", (*above, real))

    def _file(self, entry: os.DirEntry[str], key: str) -> SourceObject:
        if entry.is_symlink():
            self._keep_inside(os.path.realpath(entry.path), key)
        try:
            found = entry.stat()
        except OSError as error:
            raise self._explained(error, key) from error
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(
                f"{key!r} is no file but a {_kind(found.st_mode)}",
                hint="Leave it out by `exclude:`, or remove it.",
                source=self.url,
                object=key,
            )
        return _object(key, found)

    def _keep_inside(self, real: str, key: str) -> None:
        if real != self._real_root and not real.startswith(self._real_root.rstrip("/") + "/"):
            raise SourceError(
                f"The symbolic link {key!r} leads out of the source, to {real}",
                hint="Leave it out by `exclude:`, or name its target as a source of its own.",
                source=self.url,
                object=key,
            )

    def _changed(self, listed: SourceObject) -> ObjectChanged:
        return ObjectChanged("The file changed while it was read", source=self.url, object=listed.key)

    def _explained(self, error: OSError, key: str) -> SourceError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return ObjectVanished("The file is gone", source=self.url, object=key)
        if isinstance(error, PermissionError):
            hint = "Give this user the right to read it."
            return AccessDenied("Access is denied", hint=hint, source=self.url, object=key)
        return SourceUnavailable(f"The file can't be read: {error.strerror}", source=self.url, object=key)


def _pin(found: os.stat_result) -> Pin:
    return Pin("mtime", f"{found.st_mtime_ns}:{found.st_ino}", "weak")


def _object(key: str, found: os.stat_result) -> SourceObject:
    return SourceObject(key, found.st_size, _pin(found), found.st_mtime, away=is_away(found))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")
