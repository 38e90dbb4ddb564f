"""SFTP servers, read through asyncssh: many ranges at a time over one connection.

Links, special files and folders with two paths are treated as in local folders (local/files.py).
"""

from __future__ import annotations

import asyncio
import posixpath
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError, SourceUnavailable
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.plugins.sftp.client import RemoteFile, SftpConnection
from prefect_stagegate.plugins.sftp.connection import Login
from prefect_stagegate.plugins.sftp.event_loop_thread import EventLoopThread
from prefect_stagegate.sources.adapter import BaseSource, Wanted, everything
from prefect_stagegate.sources.selection.globs import by_path, enters, excludes
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.walk import Walk, require_regular

FOLDERS = 16
"""Folders listed at the same time."""


class _Folder(NamedTuple):
    """A folder to be listed."""

    key: str
    """With a slash at its end; empty for the source's own."""
    real: str
    """Its path with all links resolved."""
    above: str
    """The real path of the folder that holds it, or the link to it."""


@dataclass(slots=True)
class _Listing:
    """The state of one listing."""

    wanted: Wanted
    walk: Walk
    links: deque[_Folder]
    """Folders that links lead to. They are listed after all others."""


class SftpSource(BaseSource):
    """A folder or one file of an SFTP server.

    The pin is the modification time, in whole seconds: weak. It is compared after each read, on the open file. A file
    that is replaced during the read is still read as it was listed.

    Args:
        url: `sftp://[user@]host[:port]/path`; `/~/path` begins at the user's home.
        options: `host`, `port`, `username`, `password`, `key_filename`, `passphrase`, `known_hosts`.
        terms: Its idle time, permitted hosts and bound on entries apply.

    Raises:
        UsageError: The URL or an option can't be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        self._login = Login.of(url, options)
        self.url = self._login.url
        path = unquote(urlsplit(url).path)
        self.identity = f"sftp://{self._login.address}{path or '/'}"
        self._path = (path[3:] or ".") if path.startswith("/~/") else path or "/"
        self._most = terms.most
        self._connection = SftpConnection(self._login, terms.idle, terms.allowed)
        # The loop must not refer to this source, or it is never collected: pass a method of the connection.
        self._loop = EventLoopThread(f"sftp {self._login.host}", self._connection.close)

    def credential_life(self) -> CredentialLife:
        """Keys and passwords do not expire. A certificate in ~/.ssh may."""
        if self._login.password or self._login.keys:
            return CredentialLife("static", "a password" if self._login.password else "an SSH key")
        return CredentialLife("unknown", "the SSH keys of ~/.ssh and of the agent")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted file, by one request per folder, a few more per link, and none per file."""
        if self._single:
            if wanted(self._single):
                yield self.find(self._single)
            return
        listing = _Listing(wanted, Walk(self.url, self._most), deque([_Folder("", self._real_root, self._real_root)]))
        # The source's own folder is the first. What links lead to comes after all that it holds.
        while listing.links:
            yield from self._tree(listing.links.popleft(), listing)
        listing.walk.end()

    def _tree(self, top: _Folder, listing: _Listing) -> Iterator[SourceObject]:
        """The wanted files below a folder, some folders at a time."""
        folders, walk = [top], listing.walk
        while folders:
            # Take some folders from the end of the stack, so that it stays short in a deep tree.
            taken, folders = folders[-FOLDERS:], folders[:-FOLDERS]
            new = [folder for folder in taken if self._is_new(folder, listing)]
            for folder, entries in zip(new, self._loop.run(self._listed(new, walk.left)), strict=True):
                for entry in sorted(entries, key=attrgetter("name")):
                    item = self._examined(folder, entry, listing)
                    if isinstance(item, SourceObject):
                        yield item
                    elif item:
                        folders.append(item)

    def _is_new(self, folder: _Folder, listing: _Listing) -> bool:
        """Whether the walk enters a folder for the first time."""
        if listing.walk.enter_once(folder.real, folder.key):
            return True
        wanted = by_path(listing.wanted, folder.key)
        listing.walk.note_second_path(folder.key, folder.real, self._real_root, folder.above, by_path=wanted)
        return False

    def find(self, key: str) -> SourceObject:
        """The file as it is now."""
        with _errors_about(key):
            return self._object(key, self._loop.run(self._connection.stat(self._name(key))))

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Fill the buffer with the object's bytes from `start`; many threads may do so at once.

        Raises:
            ObjectChanged: The file ended early, or its size or time differ after the last byte.
            ObjectVanished: It is gone.
            AccessDenied: It may not be read.
            SourceUnavailable: The server failed, or said nothing for the idle time.
        """
        with _errors_about(listed.key):
            state = self._loop.run(self._connection.read_into(self._name(listed.key), start, buffer))
        if state is None or (state.size, str(state.modified)) != (listed.size, listed.pin.value):
            raise ObjectChanged("The file changed while it was read", source=self.url, object=listed.key)

    def close(self) -> None:
        """End the connection and the thread."""
        self._loop.close()

    async def _listed(self, folders: Sequence[_Folder], most: int) -> Sequence[Sequence[RemoteFile]]:
        return await asyncio.gather(*(self._connection.folder(self._name(folder.key), most) for folder in folders))

    @cached_property
    def _single(self) -> str:
        """The name of the one file that the URL names; empty when it names a folder."""
        if self._path.endswith("/") or not stat.S_ISREG(self._loop.run(self._connection.stat(self._path)).mode):
            return ""
        return posixpath.basename(self._path)

    @cached_property
    def _real_root(self) -> str:
        try:
            return self._loop.run(self._connection.real(self._path))
        except ObjectVanished as error:
            raise SourceError("There is no such folder", hint="Check the URL.", source=self.url) from error

    def _name(self, key: str) -> str:
        return self._path if self._single else posixpath.join(self._path, key)

    def _examined(self, folder: _Folder, entry: RemoteFile, listing: _Listing) -> SourceObject | _Folder | None:
        """An entry of a folder: the object of a wanted file, a folder to be listed, or None."""
        key = listing.walk.key(folder.key, entry.name)
        if stat.S_ISDIR(entry.mode):
            if not enters(listing.wanted, key + "/"):
                return None
            return _Folder(key + "/", posixpath.join(folder.real, entry.name), folder.real)
        if stat.S_ISLNK(entry.mode):
            return self._linked(key, folder.real, listing)
        return self._object(key, entry) if listing.wanted(key) else None

    def _linked(self, key: str, above: str, listing: _Listing) -> SourceObject | None:
        """The file that a link leads to, if it is wanted; a link to a folder is added to the listing's links."""
        if excludes(listing.wanted, key):
            return None
        # The link itself does not tell whether it leads to a file or to a folder.
        as_file, as_folder = listing.wanted(key), enters(listing.wanted, key + "/")
        with _errors_about(key):
            try:
                target, real = self._loop.run(self._connection.behind(self._name(key)))
            except SourceUnavailable:
                raise
            except SourceError:
                # A broken link is an error only where a file of its name is wanted.
                if as_file:
                    raise
                return None
            is_folder = stat.S_ISDIR(target.mode)
            if not (as_folder if is_folder else as_file):
                return None
            listing.walk.require_inside(key, real, self._real_root)
            if not is_folder:
                return self._object(key, target)
            listing.links.append(_Folder(key + "/", real, above))
            return None

    def _object(self, key: str, file: RemoteFile) -> SourceObject:
        require_regular(file.mode, key, self.url)
        return SourceObject(key, file.size, Pin("mtime", str(file.modified), "weak"), float(file.modified))


@contextmanager
def _errors_about(key: str) -> Iterator[None]:
    """Set the object of errors that the block raises."""
    try:
        yield
    except SourceError as error:
        error.object = key
        raise
