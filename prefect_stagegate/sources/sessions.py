"""SFTP sessions over one SSH connection: opened when they are needed, shared by all reads, and opened again when lost.

Runs in one event loop. A server answers the requests of one session one after the other, hence several of them.
"""

from __future__ import annotations

import asyncio
import posixpath
import stat
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncssh

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceError, SourceUnavailable
from prefect_stagegate.http import Allowed
from prefect_stagegate.sources.sftpwire import DENIED, NO_SUCH, Attributes, OpenFile, Wire, open_wire
from prefect_stagegate.sources.ssh import Login, connect, explained

T = TypeVar("T")

SESSIONS = 4
"""Sessions over a connection. OpenSSH lets ten in (MaxSessions); more than four cost time here."""
BUSY = 4
"""Reads and questions that a session has at once, above which another session is opened."""
CLOSE_SECONDS = 2.0

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
    _sessions: list[Wire] = field(default_factory=list)
    _most: int = SESSIONS
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _watched: asyncio.TimerHandle | None = None

    async def stat(self, path: str) -> Found:
        """What lies at a path, behind links."""
        async with self._session(path) as session:
            return told(b"", await session.stat(encoded(path)), path)

    async def real(self, path: str) -> str:
        """The path without links."""
        async with self._session(path) as session:
            return decoded(await session.real(encoded(path)))

    async def behind(self, path: str) -> tuple[Found, str]:
        """What a symbolic link leads to, and its path without links.

        Raises:
            SourceError: It leads to itself, or the server refuses to follow it for another reason.
        """
        try:
            found, real = await asyncio.gather(self.stat(path), self.real(path))
        except SourceUnavailable as error:
            refusal = error.__cause__
            if not isinstance(refusal, asyncssh.SFTPError) or isinstance(refusal, _LOST):
                raise
            raise SourceError(
                f"The symbolic link can't be followed: {refusal.reason}",
                hint="It may lead to itself. Leave it out by `exclude:`, or remove it.",
                source=self.login.url,
                object=path,
            ) from error
        return found, real

    async def folder(self, path: str, most: int) -> list[Found]:
        """What a folder holds, links as links; not all of it where that is more than `most`."""
        async with self._session(path) as session:
            entries = await session.folder(encoded(path), most)
            return [told(name, attributes, path) for name, attributes in entries if name not in (b".", b"..")]

    @asynccontextmanager
    async def opened(self, path: str) -> AsyncIterator[OpenFile]:
        """A file, open for reading."""
        async with self._session(path) as session:
            file = await session.open(encoded(path))
            try:
                yield file
            finally:
                file.close()

    async def close(self) -> None:
        """End the connection; whoever asks afterwards meets the closed one."""
        if self._connecting is None:
            return
        self._connecting.cancel()
        with suppress(Exception, asyncio.CancelledError):
            connection = await self._connecting
            connection.close()
            await asyncio.wait_for(connection.wait_closed(), CLOSE_SECONDS)

    @asynccontextmanager
    async def _session(self, path: str) -> AsyncIterator[Wire]:
        """The least busy session; what it raises is explained, and a lost connection forgotten."""
        session = None
        try:
            session = self._free() or await self._another()
            session.users += 1
            self._watched = self._watched or asyncio.get_running_loop().call_later(self.idle, self._watch)
            yield session
        except (asyncssh.Error, OSError) as error:
            if isinstance(error, _LOST) and session in self._sessions:
                self._forget()
            raise self._explained(error, path) from error
        finally:
            if session is not None:
                session.users -= 1

    def _free(self) -> Wire | None:
        """The least busy session; None when there should be another one."""
        free = min(self._sessions, key=lambda one: one.users, default=None)
        return free if free and (free.users < BUSY or len(self._sessions) >= self._most) else None

    async def _another(self) -> Wire:
        connection = await self._connection()
        async with self._opening:
            if free := self._free():
                return free
            try:
                session = await self._patiently(open_wire(connection))
            except asyncssh.ChannelOpenError:
                if not self._sessions:
                    raise
                self._most = len(self._sessions)  # the server lets no more in
                return min(self._sessions, key=lambda one: one.users)
            self._sessions.append(session)
            return session

    async def _patiently(self, question: Coroutine[Any, Any, T]) -> T:
        """The answer, unless the server says nothing at all for the idle time."""
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(question)
        began = loop.time()
        try:
            while not task.done():
                left = max(began, self._heard) + self.idle - loop.time()
                if left <= 0:
                    raise self._give_up()
                await asyncio.wait([task], timeout=left)
            return task.result()
        finally:
            task.cancel()

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

    @property
    def _heard(self) -> float:
        """When the server said anything, by the loop's clock."""
        return max((one.heard for one in self._sessions), default=0.0)

    def _watch(self) -> None:
        """Give up when the idle time has passed; one timer for all questions costs far less than one for each."""
        loop, self._watched = asyncio.get_running_loop(), None
        if not any(one.users for one in self._sessions):
            return
        since = min((at for one in self._sessions if (at := one.waits_since) is not None), default=loop.time())
        end = max(self._heard, since) + self.idle
        if end > loop.time():
            self._watched = loop.call_at(end, self._watch)
        else:
            self._give_up()

    def _give_up(self) -> TimeoutError:
        """Let all questions fail, and drop the connection."""
        error = TimeoutError(f"it said nothing for {self.idle:g} seconds")
        for one in self._sessions:
            one.fail(error)
        self._forget()
        return error

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
        refused = error.code if isinstance(error, asyncssh.SFTPError) else None
        if refused in NO_SUCH:
            return ObjectVanished("The file is gone", **where)
        if refused == DENIED:
            hint = f"Give {self.login.user or 'this user'} the right to read it."
            return AccessDenied("Access is denied", hint=hint, **where)
        return explained(error, self.login, key=path)


def encoded(path: str) -> bytes:
    """A path as the server has it."""
    return path.encode("utf-8", "surrogateescape")


def decoded(path: bytes) -> str:
    """A path as keys have it."""
    return path.decode("utf-8", "surrogateescape")


def told(name: bytes, attributes: Attributes, path: str) -> Found:
    """What the server says of a file.

    Raises:
        SourceError: It doesn't say what is needed.
    """
    size, mode, modified = attributes
    if size is None or mode is None or modified is None:
        named = posixpath.join(path, decoded(name))
        raise SourceError(f"The server doesn't tell size, time and kind of {named!r}")
    return Found(decoded(name), mode, size, modified)


def kind(mode: int) -> str:
    """What a mode says it is, for people."""
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")
