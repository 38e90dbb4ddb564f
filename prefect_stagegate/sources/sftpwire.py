"""The part of the SFTP protocol that reads, over one channel of an SSH connection.

It is version 3 of the protocol (draft-ietf-secsh-filexfer-02), which all servers know. asyncssh's own client takes
three times the processor's time for the same files: each request is a packet of its own, and what comes passes through
a stream. Here all requests of one turn of the event loop leave in one packet.

A server must answer what concerns one file as if each request had waited for the answer before (section 6.1 there), so
a question about an open file may follow a read of it at once.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncssh

from prefect_stagegate.units import count_text

REQUEST = 255 << 10
"""Bytes of one read request at first. OpenSSH takes 256 KiB with its header; less is asked of whoever gives less."""
LEAST = 32 << 10
"""Bytes that every server gives at once (section 3 of the draft)."""
VERSION = 3
LARGEST = 4 << 20
"""Bytes of an answer at most."""
NO_SUCH = (2, 10, 19)
"""The codes of what isn't there: file, path, or a folder above it."""
DENIED = 3

_INIT, _OPEN, _CLOSE, _READ, _FSTAT, _OPENDIR, _READDIR, _REALPATH, _STAT = 1, 3, 4, 5, 8, 11, 12, 16, 17
_TOLD_VERSION, _STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 2, 101, 102, 103, 104, 105
_EXPECTED = {
    _CLOSE: _STATUS, _FSTAT: _ATTRS, _INIT: _TOLD_VERSION, _OPEN: _HANDLE, _OPENDIR: _HANDLE, _READ: _DATA,
    _READDIR: _NAME, _REALPATH: _NAME, _STAT: _ATTRS,
}  # fmt: skip
_OK, _EOF = 0, 1
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_MORE = 1, 2, 4, 8, 1 << 31
_FOR_READING = struct.pack(">II", 1, 0)
_HEAD = struct.Struct(">IBI")
_WORD = struct.Struct(">I")


class Attributes(NamedTuple):
    """What a server says of a file, folder or link; None where it doesn't say."""

    size: int | None
    mode: int | None
    """As stat(2) has it."""
    modified: int | None
    """Seconds since the epoch."""


Named = tuple[bytes, Attributes]
_Range = tuple[int, int, asyncio.Future[bytes]]
"""Where it begins and ends, and what will be its bytes."""


class _Asked(NamedTuple):
    """A request without its answer yet."""

    answer: asyncio.Future[Any] | None
    """None where nobody waits for it."""
    expected: int
    at: float
    """By the loop's clock."""


@dataclass(slots=True)
class _Coming:
    """An answer of which not all has come."""

    kind: int
    number: int
    left: int
    pieces: list[memoryview]


class Wire(asyncssh.SSHClientSession[bytes]):
    """One SFTP session. Make it by `open_wire`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._outgoing: list[bytes] = []
        self._asked: dict[int, _Asked] = {}
        self._number = VERSION
        self._head = b""
        self._coming: _Coming | None = None
        self._failure: Exception | None = None
        self.heard = self._loop.time()
        """When anything came, by the loop's clock."""
        self.users = 0
        """How many reads and questions use it now."""
        self.request = REQUEST
        """Bytes of one read request: what the server was seen to give at once."""

    @property
    def waits_since(self) -> float | None:
        """When the oldest request was made that has no answer yet; None when all have."""
        return next(iter(self._asked.values())).at if self._asked else None

    async def begin(self) -> None:
        """Agree on the protocol's version."""
        # Where other answers have the number of their request, this one has the version.
        answer = self._await(VERSION, _INIT)
        self._send(struct.pack(">IBI", 5, _INIT, VERSION))
        await answer

    async def stat(self, path: bytes) -> Attributes:
        """What lies at a path, behind links."""
        found: Attributes = await self._ask(_STAT, _string(path))
        return found

    async def real(self, path: bytes) -> bytes:
        """The path without links."""
        names: list[Named] = await self._ask(_REALPATH, _string(path))
        if not names:
            raise asyncssh.SFTPBadMessage("No path where one was asked for")
        return names[0][0]

    async def folder(self, path: bytes, most: int) -> list[Named]:
        """What a folder holds, links as links; no more is asked for when that is more than `most`."""
        handle: bytes = await self._ask(_OPENDIR, _string(path))
        try:
            found: list[Named] = []
            while len(found) <= most and (names := await self._ask(_READDIR, handle)):
                found += names
            return found
        finally:
            self._tell(_CLOSE, handle)

    async def open(self, path: bytes) -> OpenFile:
        """A file, open for reading."""
        return OpenFile(self, await self._ask(_OPEN, _string(path), _FOR_READING))

    def fail(self, error: Exception) -> None:
        """Let all requests fail, those to come too."""
        self._failure = self._failure or error
        asked, self._asked = self._asked, {}
        for one in asked.values():
            _refuse(one.answer, error)

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Keep the channel."""
        self._channel = chan

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait."""
        self.fail(exc or asyncssh.ConnectionLost("the server ended the session"))

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take answers apart, however they were cut into packets."""
        del datatype
        self.heard = self._loop.time()
        if self._head:
            data, self._head = self._head + data, b""
        view, at = memoryview(data), 0
        while at < len(data):
            if self._coming is None:
                if len(data) - at < _HEAD.size:
                    self._head = data[at:]
                    return
                size, kind, number = _HEAD.unpack_from(data, at)
                if not _HEAD.size - _WORD.size <= size <= LARGEST:
                    self._break_off("an answer of an impossible size")
                    return
                self._coming, at = _Coming(kind, number, size - _HEAD.size + _WORD.size, []), at + _HEAD.size
            coming = self._coming
            piece = view[at : at + coming.left]
            coming.pieces.append(piece)
            coming.left -= len(piece)
            at += len(piece)
            if not coming.left:
                self._coming = None
                self._take(coming)

    def _take(self, answer: _Coming) -> None:
        asked = self._asked.get(answer.number)
        if asked is None or answer.kind not in (asked.expected, _STATUS):
            self._break_off(f"an answer of kind {answer.kind} that nobody asked for")
            return
        refusal, result = None, None
        try:
            result = _data(answer.pieces) if answer.kind == _DATA else _parsed(answer, asked.expected)
        except asyncssh.SFTPError as error:
            refusal = error
        except (struct.error, IndexError):
            self._break_off(f"an answer of kind {answer.kind} that can't be read")
            return
        del self._asked[answer.number]
        if refusal:
            _refuse(asked.answer, refusal)
        elif asked.answer is not None and not asked.answer.done():
            asked.answer.set_result(result)

    def _break_off(self, why: str) -> None:
        self.fail(asyncssh.SFTPConnectionLost(f"it sent {why}"))
        if self._channel:
            self._channel.abort()

    def _ask(self, kind: int, *parts: bytes) -> asyncio.Future[Any]:
        self._number = (self._number + 1) & 0xFFFFFFFF
        answer = self._await(self._number, kind)
        self._send(_packet(kind, self._number, parts))
        return answer

    def _tell(self, kind: int, *parts: bytes) -> None:
        """Ask, and let nobody wait for the answer."""
        if self._failure is None:
            self._number = (self._number + 1) & 0xFFFFFFFF
            self._asked[self._number] = _Asked(None, _EXPECTED[kind], self._loop.time())
            self._send(_packet(kind, self._number, parts))

    def _await(self, number: int, kind: int) -> asyncio.Future[Any]:
        if self._failure is not None:
            raise self._failure
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked[number] = _Asked(answer, _EXPECTED[kind], self._loop.time())
        return answer

    def _send(self, packet: bytes) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packet)

    def _flush(self) -> None:
        packets, self._outgoing = self._outgoing, []
        if self._channel and self._failure is None:
            try:
                self._channel.write(b"".join(packets))
            except OSError as error:
                self.fail(error)


class OpenFile:
    """A file that is open for reading. Close it."""

    def __init__(self, wire: Wire, handle: bytes) -> None:
        self._wire, self._handle = wire, handle
        self.asked_again = False
        """Whether the server gave less than was asked for, and was asked for the rest."""

    def ask(self, start: int, end: int) -> Sequence[_Range]:
        """Ask for a range, in as many requests as the server needs; `pieces` gives what comes."""
        size = self._wire.request
        ends = ((at, min(at + size, end)) for at in range(start, end, size))
        return [(one, other, self._read(one, other)) for one, other in ends]

    async def pieces(self, asked: Sequence[_Range]) -> list[bytes]:
        """The bytes that were asked for, in order; less at the file's end."""
        found: list[bytes] = []
        left = deque(asked)
        while left:
            start, end, answer = left.popleft()
            if not (piece := await answer):
                continue
            if len(piece) > end - start:
                raise asyncssh.SFTPBadMessage(f"{count_text(len(piece), 'byte')} where {end - start:,} were asked for")
            found.append(piece)
            if (at := start + len(piece)) < end:
                # Most likely this is as much as the server gives at once, and no file's end.
                self._wire.request = min(self._wire.request, max(len(piece), LEAST))
                self.asked_again = True
                left.extendleft(reversed(self.ask(at, end)))
        return found

    def attributes(self) -> asyncio.Future[Attributes]:
        """Ask what the file is after the reads that were asked for before."""
        return self._wire._ask(_FSTAT, self._handle)  # noqa: SLF001

    def close(self) -> None:
        """Close it, and don't wait for that."""
        self._wire._tell(_CLOSE, self._handle)  # noqa: SLF001

    def _read(self, start: int, end: int) -> asyncio.Future[bytes]:
        return self._wire._ask(_READ, self._handle, struct.pack(">QI", start, end - start))  # noqa: SLF001


async def open_wire(connection: asyncssh.SSHClientConnection) -> Wire:
    """Open an SFTP session over a connection.

    Raises:
        asyncssh.ChannelOpenError: The server lets no more sessions in.
        asyncssh.Error: It has no SFTP, or another version of it.
    """
    _, wire = await connection.create_session(Wire, subsystem="sftp", encoding=None)
    assert isinstance(wire, Wire)  # noqa: S101 - made by the line above
    await wire.begin()
    return wire


def _refuse(answer: asyncio.Future[Any] | None, error: Exception) -> None:
    if answer is not None and not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever asked may have gone, and then nobody need hear of it


def _packet(kind: int, number: int, parts: tuple[bytes, ...]) -> bytes:
    body = b"".join(parts)
    return _HEAD.pack(_HEAD.size - _WORD.size + len(body), kind, number) + body


def _string(text: bytes) -> bytes:
    return _WORD.pack(len(text)) + text


def _data(pieces: list[memoryview]) -> bytes:
    """The bytes of a file behind the word that says how many they are.

    In one piece: each that is handed on to another thread costs more than its copy.
    """
    left = _WORD.size
    while pieces and left >= len(pieces[0]):
        left -= len(pieces.pop(0))
    if pieces:
        pieces[0] = pieces[0][left:]
    return b"".join(pieces)


def _parsed(answer: _Coming, expected: int) -> Any:
    """What any other answer says; nothing at an end.

    Raises:
        asyncssh.SFTPError: The server refuses.
        struct.error, IndexError: It can't be read.
    """
    body = _Body(b"".join(answer.pieces))
    if answer.kind == _STATUS:
        return _status(body, expected)
    if answer.kind == _HANDLE:
        return _string(body.string())
    if answer.kind == _NAME:
        return [_named(body) for _ in range(body.word())]
    if answer.kind == _ATTRS:
        return body.attributes()
    return None


def _status(body: _Body, expected: int) -> Any:
    code = body.word()
    if code == _EOF and expected in (_DATA, _NAME):
        return []
    if code == _OK and expected == _STATUS:
        return None
    reason = body.string().decode(errors="replace") if body else ""
    raise asyncssh.SFTPError(code, reason or f"it refused with code {code}")


def _named(body: _Body) -> Named:
    name, _ = body.string(), body.string()
    return name, body.attributes()


class _Body:
    """An answer's fields, taken one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def word(self) -> int:
        """An unsigned integer of 32 bits."""
        return int(self._take(_WORD)[0])

    def string(self) -> bytes:
        """Bytes with their count before them."""
        start = self._at + _WORD.size
        self._at = start + self.word()
        if self._at > len(self._data):
            raise IndexError
        return self._data[start : self._at]

    def attributes(self) -> Attributes:
        """What is said of a file."""
        flags = self.word()
        size = int(self._take(_LONG)[0]) if flags & _HAS_SIZE else None
        if flags & _HAS_OWNER:
            self._take(_PAIR)
        mode = self.word() if flags & _HAS_MODE else None
        modified = int(self._take(_PAIR)[1]) if flags & _HAS_TIMES else None
        for _ in range(2 * self.word() if flags & _HAS_MORE else 0):
            self.string()
        return Attributes(size, mode, modified)

    def _take(self, form: struct.Struct) -> tuple[Any, ...]:
        found = form.unpack_from(self._data, self._at)
        self._at += form.size
        return found


_LONG, _PAIR = struct.Struct(">Q"), struct.Struct(">II")
