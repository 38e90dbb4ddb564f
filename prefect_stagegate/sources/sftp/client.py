"""asyncssh's SFTP client over one SSH connection: opened by the first request, and opened again after it was lost.

Runs in one event loop. asyncssh reads the protocol. Added here is what a hostile or broken server makes necessary: an
idle time-out, a check of each block's length, bounds on listings, and typed errors for whatever asyncssh raises.
"""

from __future__ import annotations

import asyncio
import posixpath
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import asyncssh

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceError, SourceUnavailable
from prefect_stagegate.http import Allowed
from prefect_stagegate.sources.sftp.connection import Login, connect, explained
from prefect_stagegate.units import count_text

T = TypeVar("T")

LARGEST_BLOCK = 255 << 10
"""Bytes of one read request at most; OpenSSH takes no more."""
SMALLEST_BLOCK = 32 << 10
"""Bytes of one read request at least: every server gives as many (draft-ietf-secsh-filexfer-02, section 3)."""
REQUESTS = 16
"""Read requests that are in flight for one range."""
VERSION = 3
"""Of the protocol. Later versions have other attributes, and no server answers with one that it wasn't asked for."""
CLOSE_SECONDS = 2.0

_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)
_BROKEN = (asyncssh.SFTPBadMessage, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
_MALFORMED = (ValueError, LookupError)
"""What asyncssh raises for answers that can't be decoded, and for an answer without the name that it was asked for."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the server says of one file, folder or link."""

    name: str
    """Bytes that are no UTF-8 stand in it as lone surrogates."""
    mode: int
    """As stat(2) has it."""
    size: int
    modified: int
    """Seconds since the epoch."""


@dataclass(slots=True)
class _Session:
    connection: asyncssh.SSHClientConnection
    client: asyncssh.SFTPClient
    failure: BaseException | None = None
    """Why it was given up."""


@dataclass
class SftpConnection:
    """The connection and its SFTP session, which all requests share.

    Args:
        login: Whom to ask.
        idle: Seconds without any answer after which the connection is given up.
        allowed: Hosts that may be asked wherever they are.
    """

    login: Login
    idle: float
    allowed: Allowed
    connections: int = 0
    """How often a connection was opened."""
    _opening: asyncio.Task[_Session] | None = None
    """The latest attempt; also when it is done."""
    _answered: float = 0.0
    """When the latest answer came, by the loop's clock."""
    _closing: set[asyncio.Task[None]] = field(default_factory=set)
    """Requests that close files; nobody waits for them."""

    async def stat(self, path: str) -> RemoteFile:
        """What lies at a path, behind links."""
        attributes = await self._run(path, lambda client: client.stat(encoded(path)))
        return _remote_file(path, attributes)

    async def real(self, path: str) -> str:
        """The path without links."""
        real = await self._run(path, lambda client: client.realpath(encoded(path)))
        return decoded(real)

    async def behind(self, path: str) -> tuple[RemoteFile, str]:
        """What a symbolic link leads to, and its path without links.

        Raises:
            SourceError: It leads to itself, or the server refuses to follow it for another reason.
        """
        try:
            file, real = await asyncio.gather(self.stat(path), self.real(path))
        except SourceUnavailable as error:
            refusal = error.__cause__
            if not isinstance(refusal, asyncssh.SFTPError) or isinstance(refusal, _BROKEN):
                raise
            raise SourceError(
                f"The symbolic link can't be followed: {refusal.reason}",
                hint="It may lead to itself. Leave it out by `exclude:`, or remove it.",
                source=self.login.url,
                object=path,
            ) from error
        return file, real

    async def folder(self, path: str, most: int) -> list[RemoteFile]:
        """What a folder holds, links as links; not all of it where that is more than `most`."""
        return await self._run(path, lambda client: self._scan(client, path, most))

    async def read_into(self, path: str, start: int, buffer: memoryview) -> RemoteFile | None:
        """Fill the buffer with a file's bytes from `start`.

        Returns:
            What the open file was after its last byte; None when it ended before the buffer was full.
        """
        # A request that is cancelled ends a little later than this. It can't write any more: its view is released.
        with buffer[:] as view:
            attributes = await self._run(path, lambda client: self._read(client, path, start, view))
        return _remote_file(path, attributes) if attributes else None

    async def close(self) -> None:
        """End the connection; a request that follows fails."""
        if self._opening is None:
            return
        self._opening.cancel()
        with suppress(Exception, asyncio.CancelledError):
            connection = (await self._opening).connection
            connection.close()
            await asyncio.wait_for(connection.wait_closed(), CLOSE_SECONDS)

    async def _scan(self, client: asyncssh.SFTPClient, path: str, most: int) -> list[RemoteFile]:
        files: list[RemoteFile] = []
        dots = {b".", b".."}
        async with aclosing(cast("AsyncGenerator[asyncssh.SFTPName]", client.scandir(encoded(path)))) as entries:
            async for entry in entries:
                self._note_answer()
                name = cast("bytes", entry.filename)  # as the path that was asked for
                if name in dots:
                    dots.remove(name)  # a second one is an entry, which the caller refuses
                    continue
                files.append(_remote_file(path, entry.attrs, name))
                if len(files) > most:
                    break
        return files

    async def _read(
        self, client: asyncssh.SFTPClient, path: str, start: int, view: memoryview
    ) -> asyncssh.SFTPAttrs | None:
        """Fill the view by several requests at a time, each into its own place."""
        # Without a block size, each read is one request: asyncssh's own parallel reader gives zeros for a block in the
        # middle that a server says is behind the end, and lets a block of too many bytes run into its neighbours.
        file = await client.open(encoded(path), asyncssh.FXF_READ, encoding=None, block_size=None)
        try:
            self._note_answer()
            size = min(max(client.limits.max_read_len, SMALLEST_BLOCK), LARGEST_BLOCK)
            blocks = iter(range(0, len(view), size))

            async def fill_blocks() -> bool:
                for position in blocks:
                    if not await self._fill(file, start, view, position, min(position + size, len(view))):
                        return False
                return True

            if len(view) <= size:
                complete = await fill_blocks()
            else:
                complete = await _all_true([fill_blocks() for _ in range(REQUESTS)])
            return await file.stat() if complete else None
        finally:
            self._close_later(file)

    async def _fill(self, file: asyncssh.SFTPClientFile, start: int, view: memoryview, position: int, end: int) -> bool:
        """Fill a part of the view; a server may give less than it is asked for. False at the file's end."""
        while position < end:
            data = cast("bytes", await file.read(end - position, start + position))  # the file has no encoding
            self._note_answer()
            if not data:
                return False
            if len(data) > end - position:
                raise asyncssh.SFTPBadMessage(
                    f"{count_text(len(data), 'byte')} where {end - position:,} were asked for"
                )
            view[position : position + len(data)] = data
            position += len(data)
        return True

    async def _run(self, path: str, operation: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """Run an operation over the shared session; what it raises is explained, and a broken connection dropped."""
        session, attempt = await self._session()
        try:
            return await self._with_idle_timeout(operation(session.client))
        except (asyncssh.Error, OSError, *_MALFORMED) as error:
            if not isinstance(error, asyncssh.SFTPError) or isinstance(error, _BROKEN):
                session.failure = session.failure or error  # whoever else waits fails for the same reason
                session.connection.abort()
                self._forget(attempt)
            raise self._explained(session.failure or error, path) from error

    async def _session(self) -> tuple[_Session, asyncio.Task[_Session]]:
        """The open session; all who need it while it is being opened wait for the same attempt."""
        if self._opening is None:
            self.connections += 1
            self._opening = asyncio.ensure_future(self._open())
        attempt = self._opening
        try:
            return await asyncio.shield(attempt), attempt
        except BaseException:
            if attempt.done():
                self._forget(attempt)
            raise

    async def _open(self) -> _Session:
        connection = await connect(self.login, self.idle, self.allowed)
        try:
            client = await self._with_idle_timeout(connection.start_sftp_client(path_encoding=None))
            _require_version(client)
        except BaseException as error:
            connection.abort()
            if isinstance(error, asyncssh.Error | OSError | ValueError | LookupError):
                raise self._explained(error) from error
            raise
        return _Session(connection, client)

    async def _with_idle_timeout(self, operation: Awaitable[T]) -> T:
        """The operation's result, unless nothing at all is answered for the idle time.

        An answer to any request counts: where many share a slow connection, each waits for long.

        Raises:
            TimeoutError: Nothing was answered.
        """
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(operation)
        begun = loop.time()
        try:
            while not task.done():
                left = max(begun, self._answered) + self.idle - loop.time()
                if left <= 0:
                    raise TimeoutError(f"it said nothing for {self.idle:g} seconds")
                await asyncio.wait([task], timeout=left)
            self._note_answer()
            return task.result()
        finally:
            task.cancel()

    def _note_answer(self) -> None:
        self._answered = asyncio.get_running_loop().time()

    def _forget(self, attempt: asyncio.Task[_Session]) -> None:
        """Let the next request open another connection, unless another is being opened already."""
        if self._opening is attempt:
            self._opening = None

    def _close_later(self, file: asyncssh.SFTPClientFile) -> None:
        """Close a file, and don't wait for the server's answer."""
        task = asyncio.ensure_future(_close(file))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _explained(self, error: BaseException, path: str = "") -> SourceError:
        context = {"source": self.login.url, "object": path}
        if isinstance(error, _GONE):
            return ObjectVanished("The file is gone", **context)
        if isinstance(error, asyncssh.SFTPPermissionDenied):
            hint = f"Give {self.login.user or 'this user'} the right to read it."
            return AccessDenied("Access is denied", hint=hint, **context)
        if isinstance(error, _MALFORMED):
            error = asyncssh.SFTPBadMessage(f"it sent an answer that can't be read ({error})")
        return explained(error, self.login, key=path)


def _require_version(client: asyncssh.SFTPClient) -> None:
    if client.version != VERSION:
        raise asyncssh.SFTPBadMessage(f"version {client.version} where {VERSION} was asked for")


async def _all_true(coroutines: list[Coroutine[Any, Any, bool]]) -> bool:
    """Whether all give True; the others end when one raises."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return all(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _close(file: asyncssh.SFTPClientFile) -> None:
    with suppress(asyncssh.Error, OSError, *_MALFORMED):  # the bytes are here, whatever the server says now
        await file.close()


def encoded(path: str) -> bytes:
    """A path as the server has it."""
    return path.encode("utf-8", "surrogateescape")


def decoded(path: bytes) -> str:
    """A path as keys have it."""
    return path.decode("utf-8", "surrogateescape")


def _remote_file(path: str, attributes: asyncssh.SFTPAttrs, name: bytes = b"") -> RemoteFile:
    """What the server says of a file.

    Raises:
        SourceError: It doesn't say what is needed.
    """
    size, mode, modified = attributes.size, attributes.permissions, attributes.mtime
    if size is None or mode is None or modified is None:
        raise SourceError(f"The server doesn't tell size, time and kind of {posixpath.join(path, decoded(name))!r}")
    return RemoteFile(decoded(name), mode, size, int(modified))


def kind(mode: int) -> str:
    """What a mode says it is, for people."""
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")
