"""Answers as odd servers give them, over a real SSH connection: cut anywhere, short, for nobody, or senseless."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import asyncssh
import pytest

from prefect_stagegate.sources.sftpwire import NO_SUCH, REQUEST, Attributes, Wire, open_wire

T = TypeVar("T")

OPEN, CLOSE, READ, FSTAT, OPENDIR, READDIR, REALPATH, STAT = 3, 4, 5, 8, 11, 12, 16, 17
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
NO_SUCH_FILE = struct.pack(">I", 2) + struct.pack(">I", 4) + b"gone" + struct.pack(">I", 0)
END = struct.pack(">I", 1)
FINE = struct.pack(">I", 0)
BYTES = bytes(range(256)) * 4000


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def packet(kind: int, number: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) + 5, kind, number) + body


def attributes() -> bytes:
    """All that version 3 can say: size, owner, mode, times, and an extension."""
    fields = struct.pack(">QIIIII", len(BYTES), 0, 0, 0o100644, 11, 22)
    return struct.pack(">I", 0x8000000F) + fields + struct.pack(">I", 1) + text(b"ext@example.org") + text(b"value")


@dataclass
class Server:
    """A server that has one file, `a`, in one folder.

    Attributes:
        cut: Bytes of each piece that its answers are sent in.
        most: Bytes that one read gives at most.
        odd: What it sends in place of the answer to a request of this kind, by the request's number.
        asked: The kinds of the requests that came.
        received: How often something came.
    """

    cut: int = 1 << 30
    most: int = 1 << 30
    odd: dict[int, Callable[[int], bytes]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    received: int = 0
    listed: bool = False
    held: bytes = b""

    def take(self, data: bytes, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        """Answer what came."""
        self.received += 1
        self.held += data
        while len(self.held) >= 4 + (size := int.from_bytes(self.held[:4], "big")):
            answer, self.held = self.answer(self.held[4 : 4 + size]), self.held[4 + size :]
            for at in range(0, len(answer), self.cut):
                channel.write(answer[at : at + self.cut])

    def answer(self, request: bytes) -> bytes:
        """The answer to one request."""
        kind, number = request[0], int.from_bytes(request[1:5], "big")
        if kind == 1:
            return struct.pack(">IBI", 5, 2, 3)
        self.asked.append(kind)
        if kind in self.odd:
            return self.odd[kind](number)
        told, body = self._told(kind, request[5:])
        return packet(told, number, body)

    def _told(self, kind: int, body: bytes) -> tuple[int, bytes]:
        if kind in (OPEN, OPENDIR):
            self.listed = False
            known = body[4:].startswith(b"a") or kind == OPENDIR
            return (HANDLE, text(b"handle")) if known else (STATUS, NO_SUCH_FILE)
        if kind == READ:
            start, length = struct.unpack(">QI", body[-12:])
            data = BYTES[start : start + min(length, self.most)]
            return (DATA, text(data)) if data else (STATUS, END)
        if kind == READDIR:
            self.listed, ended = True, self.listed
            entry = text(b"a") + text(b"-rw-r--r-- a") + attributes()
            return (STATUS, END) if ended else (NAME, struct.pack(">I", 1) + entry)
        if kind == REALPATH:
            return NAME, struct.pack(">I", 1) + text(b"/real") + text(b"") + struct.pack(">I", 0)
        return (STATUS, FINE) if kind == CLOSE else (ATTRS, attributes())


class _Session(asyncssh.SSHServerSession[bytes]):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def data_received(self, data: bytes, datatype: int | None) -> None:
        del datatype
        self._server.take(data, self._channel)


class _Everybody(asyncssh.SSHServer):
    def __init__(self, server: Server) -> None:
        self._server = server

    def begin_auth(self, username: str) -> bool:
        del username
        return False

    def session_requested(self) -> _Session:
        return _Session(self._server)


@asynccontextmanager
async def _opened(server: Server) -> AsyncIterator[Wire]:
    key, factory = asyncssh.generate_private_key("ssh-ed25519"), partial(_Everybody, server)
    async with (
        asyncssh.listen("127.0.0.1", 0, server_factory=factory, server_host_keys=[key], encoding=None) as listener,
        asyncssh.connect("127.0.0.1", listener.get_port(), known_hosts=None, config=()) as connection,
    ):
        yield await open_wire(connection)


def ask(server: Server, question: Callable[[Wire], Awaitable[T]]) -> T:
    """What a wire to the server makes of its answers."""

    async def run() -> T:
        async with _opened(server) as wire, asyncio.timeout(30):
            return await question(wire)

    return asyncio.run(run())


async def whole(wire: Wire) -> tuple[bytes, Attributes]:
    """The file, and what it is after that."""
    file = await wire.open(b"a")
    asked, state = file.ask(0, len(BYTES)), file.attributes()
    data = b"".join(await file.pieces(asked))
    found = await (file.attributes() if file.asked_again else state)
    file.close()
    return data, found


ALL = Attributes(len(BYTES), 0o100644, 22)


@pytest.mark.parametrize("cut", [1, 7, 1000, 1 << 30])
def test_answers_may_be_cut_anywhere(cut: int) -> None:
    async def everything(wire: Wire) -> tuple[object, ...]:
        return await wire.stat(b"a"), await wire.real(b"a"), await wire.folder(b".", 100), await wire.real(b"a")

    assert ask(Server(cut=cut), everything) == (ALL, b"/real", [(b"a", ALL)], b"/real")


@pytest.mark.parametrize("pieces", [977, 32768, 1 << 30])
@pytest.mark.parametrize("most", [1 << 15, 1 << 30])
def test_a_file_is_read_whole_however_little_an_answer_gives(pieces: int, most: int) -> None:
    server = Server(cut=pieces, most=most)
    assert ask(server, whole) == (BYTES, ALL)
    assert FSTAT in server.asked[len(server.asked) - 1 - server.asked[::-1].index(READ) :]  # asked after the last read


def test_a_server_that_gives_little_at_once_is_asked_for_no_more_from_then_on() -> None:
    server = Server(most=1 << 15)

    async def again(wire: Wire) -> bool:
        await whole(wire)
        server.asked.clear()
        file = await wire.open(b"a")
        assert b"".join(await file.pieces(file.ask(0, len(BYTES)))) == BYTES
        return file.asked_again

    assert not ask(server, again)
    assert server.asked.count(READ) == -(-len(BYTES) // (1 << 15))


def test_a_small_file_takes_four_requests_in_two_packets() -> None:
    server = Server()

    async def small(wire: Wire) -> bytes:
        before = server.received
        file = await wire.open(b"a")
        asked, state = file.ask(0, 1000), file.attributes()
        data = b"".join(await file.pieces(asked))
        await state
        assert server.received == before + 2
        file.close()
        await wire.stat(b"a")  # leaves in one packet with the last word about the file
        assert server.received == before + 3
        return data

    assert ask(server, small) == BYTES[:1000]
    assert server.asked == [OPEN, READ, FSTAT, CLOSE, STAT]


def test_more_bytes_than_were_asked_for_are_refused() -> None:
    server = Server(odd={READ: lambda number: packet(DATA, number, text(BYTES[:1001]))})

    async def some(wire: Wire) -> list[bytes]:
        file = await wire.open(b"a")
        return await file.pieces(file.ask(0, 1000))

    with pytest.raises(asyncssh.SFTPError, match="1,001 bytes where 1,000"):
        ask(server, some)


def test_the_end_of_a_file_is_where_less_comes() -> None:
    async def beyond(wire: Wire) -> list[bytes]:
        file = await wire.open(b"a")
        return await file.pieces(file.ask(len(BYTES) - 10, len(BYTES) + 3 * REQUEST))

    assert b"".join(ask(Server(), beyond)) == BYTES[-10:]


def test_a_refusal_is_told_with_its_code_and_ends_nothing() -> None:
    async def refused(wire: Wire) -> tuple[int, str, Attributes]:
        with pytest.raises(asyncssh.SFTPError) as caught:
            await wire.open(b"b")
        return caught.value.code, caught.value.reason, await wire.stat(b"a")

    code, reason, found = ask(Server(), refused)
    assert code in NO_SUCH
    assert (reason, found) == ("gone", ALL)


@pytest.mark.parametrize(
    "odd",
    [
        lambda number: packet(ATTRS, number + 9, attributes()),
        lambda number: packet(HANDLE, number, text(b"handle")),
        lambda number: packet(ATTRS, number, attributes()[:20]),
        lambda number: packet(ATTRS, number, attributes()[:-3]),
        lambda number: struct.pack(">IBI", 1 << 31, ATTRS, number),
        lambda number: struct.pack(">IBI", 3, ATTRS, number),
        lambda number: packet(STATUS, number, b""),
    ],
    ids=["nobody's", "another kind", "cut", "cut in a text", "too large", "too small", "without a code"],
)
def test_an_answer_that_makes_no_sense_ends_the_session_for_all_who_wait(odd: Callable[[int], bytes]) -> None:
    async def several(wire: Wire) -> list[object]:
        file = await wire.open(b"a")
        waiting = [wire.stat(b"a"), *(file.pieces(file.ask(0, 10)) for _ in range(3))]
        found: list[object] = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(asyncssh.SFTPConnectionLost):
            await wire.real(b"a")
        return found

    found = ask(Server(odd={STAT: odd}), several)
    assert isinstance(found[0], asyncssh.SFTPConnectionLost)


def test_who_waits_is_told_when_the_server_goes() -> None:
    async def left(wire: Wire) -> None:
        answer = asyncio.ensure_future(wire.stat(b"a"))
        await asyncio.sleep(0)
        wire.fail(TimeoutError("it said nothing"))
        await answer

    with pytest.raises(TimeoutError, match="said nothing"):
        ask(Server(), left)
