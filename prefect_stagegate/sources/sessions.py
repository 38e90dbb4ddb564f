"""SFTP sessions over one SSH connection: opened when they are needed, shared by all reads, and opened again when lost.

Runs in one event loop. A server answers the requests of one session one after the other, hence several of them.
"""

from __future__ import annotations

import asyncio
import posixpath
import stat
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar, cast

import asyncssh

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceError
from prefect_stagegate.sources.hosts import Allowed
from prefect_stagegate.sources.ssh import Login, connect, explained

T = TypeVar("T")

SESSIONS = 4
"""Sessions over a connection. OpenSSH lets ten in (MaxSessions); more than four cost time here."""
BUSY = 4
"""Requests in a session's queue, above which another session is opened."""
REQUEST = 255 << 10
"""Bytes of one read request. OpenSSH takes 256 KiB with its header; servers that give less are asked again."""
CLOSE_SECONDS = 2.0

_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)
_LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError, OSError)


@dataclass(frozen=True, slots=True)
class Found:
    """What the server says of one file, folder or link."""

    name: str
    """Bytes that are no UTF-8 stand in it as lone surrogates."""
    mode: int
    """As stat(2) has it."""
    size: int
    modified: int
    """Seconds since the epoch."""


@dataclass
class _Session:
    client: asyncssh.SFTPClient
    users: int = 0


@dataclass
class Sessions:
    """The connection and its sessions.

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
    _connecting: asyncio.Task[asyncssh.SSHClientConnection] | None = None
    _sessions: list[_Session] = field(default_factory=list)
    _most: int = SESSIONS
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _heard: float = 0.0
    _pending: dict[asyncio.Timeout, float] = field(default_factory=dict)
    """When each question that waits for its answer was asked, the oldest first."""
    _watched: asyncio.TimerHandle | None = None

    async def stat(self, path: str) -> Found:
        """What lies at a path, behind links."""
        async with self._session(path) as client:
            return _found(b"", await self.patiently(client.stat(encoded(path))), path)

    async def real(self, path: str) -> str:
        """The path without links."""
        async with self._session(path) as client:
            return decoded(await self.patiently(client.realpath(encoded(path))))

    async def folder(self, path: str) -> list[Found]:
        """What a folder holds, links as links."""
        async with self._session(path) as client:
            entries = client.scandir(encoded(path))
            found: list[Found] = []
            while entry := await self.patiently(_next(entries)):
                if entry.filename not in (b".", b".."):
                    found.append(_found(entry.filename, entry.attrs, path))
            return found

    @asynccontextmanager
    async def opened(self, path: str) -> AsyncIterator[asyncssh.SFTPClientFile]:
        """A file, open for reading by `read_at`."""
        async with self._session(path) as client:
            # Without a block size each read is one request: asyncssh's own parallel reader is slower than ours.
            file = await self.patiently(client.open(encoded(path), "rb", block_size=0))
            try:
                yield file
            finally:
                with suppress(asyncssh.Error, OSError):
                    await self.patiently(file.close())

    async def attributes(self, file: asyncssh.SFTPClientFile) -> Found:
        """What the server says of an open file."""
        return _found(b"", await self.patiently(file.stat()), "")

    async def read_at(self, file: asyncssh.SFTPClientFile, start: int, end: int) -> list[bytes]:
        """The bytes of a range, asked for at once in requests of 255 KiB; less at the file's end."""
        ranges = [(at, min(at + REQUEST, end)) for at in range(start, end, REQUEST)]
        if len(ranges) == 1:
            return await self._whole(file, *ranges[0])
        tasks = [asyncio.ensure_future(self._whole(file, *one)) for one in ranges]
        try:
            return [piece for pieces in await asyncio.gather(*tasks) for piece in pieces]
        finally:
            for task in tasks:
                task.cancel()

    async def patiently(self, question: Awaitable[T]) -> T:
        """The answer, unless the server has said nothing at all for the idle time: then all questions are given up."""
        loop, limit = asyncio.get_running_loop(), asyncio.timeout(None)
        self._watched = self._watched or loop.call_later(self.idle, self._watch)
        try:
            async with limit:
                self._pending[limit] = loop.time()
                answer = await question
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"it said nothing for {self.idle:g} seconds") from None
            raise
        finally:
            self._pending.pop(limit, None)
        self._heard = loop.time()
        return answer

    async def close(self) -> None:
        """End the connection; whoever asks afterwards meets the closed one."""
        if self._connecting is None:
            return
        self._connecting.cancel()
        with suppress(Exception, asyncio.CancelledError):
            connection = await self._connecting
            connection.close()
            await asyncio.wait_for(connection.wait_closed(), CLOSE_SECONDS)

    async def _whole(self, file: asyncssh.SFTPClientFile, start: int, end: int) -> list[bytes]:
        pieces: list[bytes] = []
        while start < end and (piece := await self.patiently(file.read(end - start, start))):
            pieces.append(cast("bytes", piece))
            start += len(piece)
        return pieces

    @asynccontextmanager
    async def _session(self, path: str) -> AsyncIterator[asyncssh.SFTPClient]:
        """The least busy session; what it raises is explained, and a lost connection forgotten."""
        session = None
        try:
            session = await self._least_busy()
            session.users += 1
            yield session.client
        except (asyncssh.Error, OSError) as error:
            if isinstance(error, _LOST) and session in self._sessions:
                self._forget()
            raise self._explained(error, path) from error
        finally:
            if session is not None:
                session.users -= 1

    async def _least_busy(self) -> _Session:
        connection = await self._connection()
        async with self._opening:
            free = min(self._sessions, key=lambda one: one.users, default=None)
            if free is None or (free.users >= BUSY and len(self._sessions) < self._most):
                return await self._another(connection, free)
            return free

    async def _another(self, connection: asyncssh.SSHClientConnection, other: _Session | None) -> _Session:
        try:
            client = await self.patiently(connection.start_sftp_client(path_encoding=None))
        except asyncssh.ChannelOpenError:
            if other is None:
                raise
            self._most = len(self._sessions)  # the server lets no more in
            return other
        session = _Session(client)
        self._sessions.append(session)
        return session

    async def _connection(self) -> asyncssh.SSHClientConnection:
        """The connection; whoever needs it while it is being opened waits for the same attempt."""
        if self._connecting is None:
            self.connections += 1
            self._connecting = asyncio.ensure_future(connect(self.login, self.idle, self.allowed))
        attempt = self._connecting
        try:
            return await asyncio.shield(attempt)
        except BaseException:
            if attempt.done() and self._connecting is attempt:
                self._connecting = None
            raise

    def _watch(self) -> None:
        """Give all questions up when the idle time has passed; one timer for all costs far less than one for each."""
        loop, self._watched = asyncio.get_running_loop(), None
        if not self._pending:
            return
        end = max(self._heard, next(iter(self._pending.values()))) + self.idle
        if end > loop.time():
            self._watched = loop.call_at(end, self._watch)
            return
        given_up, self._pending = self._pending, {}
        for limit in given_up:
            limit.reschedule(end)
        self._forget()

    def _forget(self) -> None:
        """Drop the connection; the next question opens another. One that is being opened is another already."""
        self._sessions = []
        if self._connecting is None or not self._connecting.done():
            return
        connecting, self._connecting = self._connecting, None
        if not connecting.cancelled() and not connecting.exception():
            connecting.result().abort()

    def _explained(self, error: asyncssh.Error | OSError, path: str) -> SourceError:
        where = {"source": self.login.url, "object": path}
        if isinstance(error, _GONE):
            return ObjectVanished("The file is gone", **where)
        if isinstance(error, asyncssh.SFTPPermissionDenied):
            hint = f"Give {self.login.user or 'this user'} the right to read it."
            return AccessDenied("Access is denied", hint=hint, **where)
        return explained(error, self.login, key=path)


def encoded(path: str) -> bytes:
    """A path as the server has it."""
    return path.encode("utf-8", "surrogateescape")


def decoded(path: bytes | str) -> str:
    """A path as keys have it."""
    return path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")


async def _next(entries: AsyncIterator[asyncssh.SFTPName]) -> asyncssh.SFTPName | None:
    return await anext(entries, None)


def _found(name: bytes | str, attributes: asyncssh.SFTPAttrs, path: str) -> Found:
    if attributes.size is None or attributes.mtime is None or attributes.permissions is None:
        told = posixpath.join(path, decoded(name))
        raise SourceError(f"The server doesn't tell size, time and kind of {told!r}")
    return Found(decoded(name), attributes.permissions, attributes.size, int(attributes.mtime))


def kind(mode: int) -> str:
    """What a mode says it is, for people."""
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")
