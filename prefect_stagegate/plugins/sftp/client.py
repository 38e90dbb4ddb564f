"""asyncssh's SFTP client over one SSH connection: the first request opens it, and opens it again after it is lost.

Runs in one event loop. asyncssh reads the protocol. This module adds what a hostile or broken server makes necessary:
an idle time-out, a check of each block's length, bounds on listings, and typed errors for asyncssh's exceptions.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import asyncssh

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceError, SourceUnavailable
from prefect_stagegate.plugins.sftp.connection import Login, connect, explained
from prefect_stagegate.transport.http import Allowed
from prefect_stagegate.units import count_text

T = TypeVar("T")

LARGEST_BLOCK = 255 << 10
"""Most bytes of one read request: OpenSSH serves no more."""
SMALLEST_BLOCK = 32 << 10
"""Bytes of a read request that every server serves (draft-ietf-secsh-filexfer-02, section 3)."""
REQUESTS = 16
"""Read requests in flight for one range."""
VERSION = 3
"""The protocol's version. Later ones have other attributes; a server may use them only when the client offers them."""
CLOSE_SECONDS = 2.0

_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)
_BROKEN = (asyncssh.SFTPBadMessage, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
_MALFORMED = (ValueError, LookupError)
"""What asyncssh raises for responses that it can't decode, or that lack the requested name."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """The server's attributes of one file, folder or link."""

    name: str
    """Bytes that are no UTF-8 are lone surrogates in it."""
    mode: int
    """As in stat(2)."""
    size: int
    modified: int
    """Seconds since the epoch."""


@dataclass(slots=True)
class _Session:
    connection: asyncssh.SSHClientConnection
    client: asyncssh.SFTPClient
    failure: BaseException | None = None
    """The exception that made the session unusable."""


@dataclass
class SftpConnection:
    """One SSH connection and its SFTP session, which all requests share.

    The connection is dropped after `idle` seconds without any response.
    """

    login: Login
    idle: float
    allowed: Allowed
    connections: int = 0
    """Connections opened so far."""
    _opening: asyncio.Task[_Session] | None = None
    """The latest attempt to open a session, also after it has succeeded."""
    _last_response: float = 0.0
    """When the latest response came, by the loop's clock."""
    _closing: set[asyncio.Task[None]] = field(default_factory=set)
    """Tasks that close files in the background."""

    async def stat(self, path: str) -> RemoteFile:
        """The file or folder at a path. Follows links."""
        attributes = await self._run(path, lambda client: client.stat(encoded(path)))
        return _remote_file(path, attributes)

    async def real(self, path: str) -> str:
        """The path with all links resolved."""
        real = await self._run(path, lambda client: client.realpath(encoded(path)))
        return decoded(real)

    async def behind(self, path: str) -> tuple[RemoteFile, str]:
        """The target of a symbolic link, and its path with all links resolved.

        Raises:
            SourceError: The server refuses to follow the link, as where it leads to itself.
        """
        try:
            file, real = await asyncio.gather(self.stat(path), self.real(path))
        except SourceUnavailable as error:
            # A refusal by the server is about this link. Any other cause means that the connection failed.
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
        """The entries of a folder, links not followed. Ends after `most` + 1 entries."""
        return await self._run(path, lambda client: self._scan(client, path, most))

    async def read_into(self, path: str, start: int, buffer: memoryview) -> RemoteFile | None:
        """Fill the buffer with a file's bytes from `start`.

        Returns:
            The attributes of the open file after its last byte; None when the file ended before the buffer was full.
        """
        # A cancelled request ends a little later than this call. Releasing its view keeps it from writing any more.
        with buffer[:] as view:
            attributes = await self._run(path, lambda client: self._read(client, path, start, view))
        return _remote_file(path, attributes) if attributes else None

    async def close(self) -> None:
        """End the connection. A later request fails."""
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
                self._note_response()
                name = cast("bytes", entry.filename)  # bytes, because the path was given as bytes
                if name in dots:
                    dots.remove(name)  # a second "." stays an entry, which the walk refuses
                    continue
                files.append(_remote_file(path, entry.attrs, name))
                if len(files) > most:
                    break
        return files

    async def _read(
        self, client: asyncssh.SFTPClient, path: str, start: int, view: memoryview
    ) -> asyncssh.SFTPAttrs | None:
        """Fill the view by several requests at a time, each into a part of its own."""
        # Without a block size, each read is one request. asyncssh's own parallel reader would return zeros for a block
        # that a server calls past the end, and would let a block of too many bytes overwrite its neighbours.
        file = await client.open(encoded(path), asyncssh.FXF_READ, encoding=None, block_size=None)
        try:
            self._note_response()
            # A server may tell no limit (0), or a larger one than it serves.
            size = min(max(client.limits.max_read_len, SMALLEST_BLOCK), LARGEST_BLOCK)
            blocks = iter(range(0, len(view), size))  # shared: each coroutine takes the next block

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
        """Fill a part of the view, by further requests where the server sends less. False at the file's end."""
        while position < end:
            data = cast("bytes", await file.read(end - position, start + position))  # the file has no encoding
            self._note_response()
            if not data:
                return False
            if len(data) > end - position:
                raise asyncssh.SFTPBadMessage(
                    f"it sent {count_text(len(data), 'byte')} instead of the requested {end - position:,}"
                )
            view[position : position + len(data)] = data
            position += len(data)
        return True

    async def _run(self, path: str, operation: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """Run an operation in the shared session. Translates its exceptions, and drops a broken connection."""
        session, attempt = await self._session()
        try:
            return await self._with_idle_timeout(operation(session.client))
        except (asyncssh.Error, OSError, *_MALFORMED) as error:
            if not isinstance(error, asyncssh.SFTPError) or isinstance(error, _BROKEN):
                # The connection is unusable. Close it, and let the next request open another one.
                session.failure = session.failure or error  # other requests then fail with the first cause
                session.connection.abort()
                self._forget(attempt)
            raise self._explained(session.failure or error, path) from error

    async def _session(self) -> tuple[_Session, asyncio.Task[_Session]]:
        """The open session. Requests that come while it is being opened wait for the same attempt."""
        if self._opening is None:
            self.connections += 1
            self._opening = asyncio.ensure_future(self._open())
        attempt = self._opening
        try:
            # Shielded: cancelling one request must not end the attempt of the others.
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
            # Only exceptions of the protocol are translated; a cancellation stays one.
            if isinstance(error, asyncssh.Error | OSError | ValueError | LookupError):
                raise self._explained(error) from error
            raise
        return _Session(connection, client)

    async def _with_idle_timeout(self, operation: Awaitable[T]) -> T:
        """The operation's result, unless the server sends no response for the idle time.

        A response to any request counts: where many share a slow connection, each waits for long.

        Raises:
            TimeoutError: No response came.
        """
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(operation)
        started = loop.time()
        try:
            while not task.done():
                left = max(started, self._last_response) + self.idle - loop.time()
                if left <= 0:
                    raise TimeoutError(f"no response for {self.idle:g} seconds")
                await asyncio.wait([task], timeout=left)
            self._note_response()
            return task.result()
        finally:
            # Also after an interrupt of the caller: nobody waits for the result any more.
            task.cancel()

    def _note_response(self) -> None:
        self._last_response = asyncio.get_running_loop().time()

    def _forget(self, attempt: asyncio.Task[_Session]) -> None:
        """Let the next request open another connection, unless another is being opened already."""
        if self._opening is attempt:
            self._opening = None

    def _close_later(self, file: asyncssh.SFTPClientFile) -> None:
        """Close a file without waiting for the server's response."""
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
            error = asyncssh.SFTPBadMessage(f"it sent a response that can't be read ({error})")
        return explained(error, self.login, key=path)


def _require_version(client: asyncssh.SFTPClient) -> None:
    if client.version != VERSION:
        raise asyncssh.SFTPBadMessage(f"it speaks version {client.version} of SFTP instead of the requested {VERSION}")


async def _all_true(coroutines: list[Coroutine[Any, Any, bool]]) -> bool:
    """Whether all return True. When one raises, the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return all(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _close(file: asyncssh.SFTPClientFile) -> None:
    with suppress(asyncssh.Error, OSError, *_MALFORMED):  # all bytes have come: a failed close loses nothing
        await file.close()


def encoded(path: str) -> bytes:
    """A path in the server's bytes."""
    return path.encode("utf-8", "surrogateescape")


def decoded(path: bytes) -> str:
    """A path as text, as in keys."""
    return path.decode("utf-8", "surrogateescape")


def _remote_file(path: str, attributes: asyncssh.SFTPAttrs, name: bytes = b"") -> RemoteFile:
    """The attributes of a file.

    Raises:
        SourceError: The server leaves out size, mode or time.
    """
    size, mode, modified = attributes.size, attributes.permissions, attributes.mtime
    if size is None or mode is None or modified is None:
        raise SourceError(f"The server doesn't tell size, time and kind of {posixpath.join(path, decoded(name))!r}")
    return RemoteFile(decoded(name), mode, size, int(modified))
