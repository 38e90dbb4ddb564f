"""SFTP servers whose answers are cut, short, out of order, for nobody, or senseless: right bytes or a typed error."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError, SourceUnavailable
from prefect_stagegate.plugins.sftp.event_loop_thread import EventLoopThread
from prefect_stagegate.sources import open_source

INIT, OPEN, CLOSE, READ, FSTAT, OPENDIR, READDIR, REALPATH, STAT, EXTENDED = 1, 3, 4, 5, 8, 11, 12, 16, 17, 200
VERSION, STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 2, 101, 102, 103, 104, 105, 201
BLOCK = 32 << 10
"""Bytes of a read request to a server that says nothing of its limits."""
BLOCKS = 32
REQUESTS = 16
BYTES = random.Random(0).randbytes(BLOCKS * BLOCK)
NOW = 22
"""When the file changed."""

Odd = Callable[[int, bytes], bytes]
"""Makes what is sent in place of an answer, of the request's number and body."""


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def packet(kind: int, number: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) + 5, kind, number) + body


def status(number: int, code: int, reason: bytes = b"") -> bytes:
    return packet(STATUS, number, struct.pack(">I", code) + text(reason) + text(b""))


def attributes(modified: int = NOW) -> bytes:
    """All that version 3 can say: size, owner, mode, times, and an extension."""
    fields = struct.pack(">QIIIII", len(BYTES), 0, 0, 0o100644, 11, modified)
    return struct.pack(">I", 0x8000000F) + fields + struct.pack(">I", 1) + text(b"ext@example.org") + text(b"value")


def names(*entries: tuple[bytes, bytes]) -> bytes:
    return struct.pack(">I", len(entries)) + b"".join(text(name) + text(b"-rw") + packed for name, packed in entries)


def read_range(body: bytes) -> tuple[int, int]:
    """Where a read begins, and how many bytes it asks for."""
    start, length = struct.unpack(">QI", body[-12:])
    return start, length


@dataclass
class Server:
    """A server that has one file, `a`, in the folder `/real`.

    Attributes:
        cut: Bytes of each piece that its answers are sent in.
        most: Bytes that one read gives at most.
        reversed: Whether the answers of `REQUESTS` reads come in the opposite order.
        odd: What it sends in place of the answer to a request of this kind.
    """

    cut: int = 1 << 30
    most: int = 1 << 30
    reversed: bool = False
    odd: dict[int, Odd] = field(default_factory=dict)
    waiting: list[bytes] = field(default_factory=list)
    ended: bool = False

    def answer(self, request: bytes) -> bytes:
        """The answer to one request."""
        kind, number, body = request[0], int.from_bytes(request[1:5], "big"), request[5:]
        if kind in self.odd:
            return self.odd[kind](number, body)
        if kind == INIT:
            return struct.pack(">IBI", 5, VERSION, 3)
        if kind == READ:
            return self._in_order(self._read(number, body))
        if body.startswith(text(b"/real/b")):
            return status(number, 2, b"gone")
        return self._told(kind, number)

    def _told(self, kind: int, number: int) -> bytes:
        if kind in (OPEN, OPENDIR):
            self.ended = False
            return packet(HANDLE, number, text(b"h"))
        if kind == READDIR:
            self.ended, ended = True, self.ended
            return status(number, 1) if ended else packet(NAME, number, names((b"a", attributes())))
        if kind == REALPATH:
            return packet(NAME, number, names((b"/real", struct.pack(">I", 0))))
        return status(number, 0) if kind == CLOSE else packet(ATTRS, number, attributes())

    def _read(self, number: int, body: bytes) -> bytes:
        start, length = read_range(body)
        data = BYTES[start : start + min(length, self.most)]
        return packet(DATA, number, text(data)) if data else status(number, 1)

    def _in_order(self, answer: bytes) -> bytes:
        self.waiting.append(answer)
        if self.reversed and len(self.waiting) < REQUESTS:
            return b""
        answers, self.waiting = reversed(self.waiting), []
        return b"".join(answers)


class _Session(asyncssh.SSHServerSession[bytes]):
    def __init__(self, server: Server) -> None:
        self._server, self._held = server, b""

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def data_received(self, data: bytes, datatype: int | None) -> None:
        del datatype
        self._held += data
        while len(self._held) >= 4 + (size := int.from_bytes(self._held[:4], "big")):
            answer, self._held = self._server.answer(self._held[4 : 4 + size]), self._held[4 + size :]
            for at in range(0, len(answer), self._server.cut):
                self._channel.write(answer[at : at + self._server.cut])


class _Everybody(asyncssh.SSHServer):
    def __init__(self, server: Server) -> None:
        self._server = server

    def begin_auth(self, username: str) -> bool:
        del username
        return False

    def session_requested(self) -> _Session:
        return _Session(self._server)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def served(folder: Path, server: Server, *, idle: float = 20.0, most: int = 1000) -> Iterator[Any]:
    """The source that the server is."""
    key, loop = asyncssh.generate_private_key("ssh-ed25519"), EventLoopThread("sftp server")

    async def listen() -> asyncssh.SSHAcceptor:
        factory = partial(_Everybody, server)
        return await asyncssh.listen("127.0.0.1", 0, server_factory=factory, server_host_keys=[key], encoding=None)

    async def end() -> None:
        listener.close()

    listener = loop.run(listen())
    port, known = listener.get_port(), folder / "known_hosts"
    known.write_bytes(f"[127.0.0.1]:{port} ".encode() + key.export_public_key())
    source = open_source(f"sftp://me@127.0.0.1:{port}/real/", {"known_hosts": str(known)}, idle=idle, most=most)
    try:
        yield source
    finally:
        source.close()
        loop.run(end())
        loop.close()


def whole(source: Any) -> bytes:
    """The file, all in one buffer."""
    buffer = bytearray(len(BYTES))
    source.read_into(source.find("a"), 0, memoryview(buffer))
    return bytes(buffer)


def listed_and_read(source: Any) -> None:
    assert [obj.key for obj in source.list()] == ["a"]
    whole(source)


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_answers_may_be_cut_anywhere(folder: Path, cut: int) -> None:
    with served(folder, Server(cut=cut)) as source:
        assert [(obj.key, obj.size, obj.pin.value) for obj in source.list()] == [("a", len(BYTES), str(NOW))]
        buffer = bytearray(5000)
        source.read_into(source.find("a"), 100_000, memoryview(buffer))
        assert buffer == BYTES[100_000:105_000]


@pytest.mark.parametrize("most", [997, BLOCK - 1, BLOCK, 1 << 30])
def test_a_file_is_read_whole_however_little_comes_at_once(folder: Path, most: int) -> None:
    with served(folder, Server(most=most)) as source:
        assert whole(source) == BYTES


def test_answers_may_come_in_any_order(folder: Path) -> None:
    with served(folder, Server(reversed=True)) as source:
        assert whole(source) == BYTES


@pytest.mark.parametrize("position", [0, 5 * BLOCK])
def test_more_bytes_than_were_asked_for_are_refused(folder: Path, position: int) -> None:
    def more(number: int, body: bytes) -> bytes:
        start, length = read_range(body)
        return packet(DATA, number, text(BYTES[start : start + length + (start == position)]))

    with (
        served(folder, Server(odd={READ: more})) as source,
        pytest.raises(SourceUnavailable, match="32,769 bytes instead of the requested 32,768") as caught,
    ):
        whole(source)
    assert caught.value.object == "a"


@pytest.mark.parametrize("answer", [lambda number: status(number, 1), lambda number: packet(DATA, number, text(b""))])
@pytest.mark.parametrize("position", [0, 5 * BLOCK, (BLOCKS - 1) * BLOCK])
def test_a_hole_is_no_zeros(folder: Path, answer: Callable[[int], bytes], position: int) -> None:
    server = Server()

    def hole(number: int, body: bytes) -> bytes:
        return answer(number) if read_range(body)[0] == position else server._read(number, body)

    server.odd[READ] = hole
    with served(folder, server) as source, pytest.raises(ObjectChanged):
        whole(source)


def test_asyncssh_fills_holes_with_zeros(folder: Path) -> None:
    """Why blocks are put together here: asyncssh gives as many bytes as there should be."""
    server = Server()
    server.odd[READ] = lambda number, body: (
        status(number, 1) if read_range(body)[0] == 0 else server._read(number, body)
    )

    async def read() -> bytes:
        session, _ = await source._source._connection._session()
        file = await session.client.open(b"/real/a", "rb", block_size=BLOCK)
        data: bytes = await file.read(4 * BLOCK, 0)
        return data

    with served(folder, server) as source:
        assert source._source._loop.run(read()) == bytes(BLOCK) + BYTES[BLOCK : 4 * BLOCK]


def test_a_range_behind_the_end_is_a_change(folder: Path) -> None:
    with served(folder, Server()) as source, pytest.raises(ObjectChanged):
        source.read_into(source.find("a"), len(BYTES) - 10, memoryview(bytearray(11)))


def test_the_open_file_is_compared_after_its_last_byte(folder: Path) -> None:
    requests: list[int] = []
    server = Server()

    def read(number: int, body: bytes) -> bytes:
        requests.append(READ)
        return server._read(number, body)

    def state(number: int, body: bytes) -> bytes:
        del body
        requests.append(FSTAT)
        return packet(ATTRS, number, attributes(modified=NOW + 1))

    server.odd = {READ: read, FSTAT: state}
    with served(folder, server) as source, pytest.raises(ObjectChanged):
        whole(source)
    assert requests == [READ] * BLOCKS + [FSTAT]


def test_a_refusal_ends_no_connection(folder: Path) -> None:
    with served(folder, Server()) as source:
        for _ in range(2):
            with pytest.raises(ObjectVanished) as caught:
                source.find("b")
            assert caught.value.object == "b"
        assert whole(source) == BYTES
        assert source._source._connection.connections == 1


SENSELESS: dict[str, Odd] = {
    "nobody's": lambda number, _: packet(ATTRS, number + 9, attributes()),
    "another kind": lambda number, _: packet(HANDLE, number, text(b"handle")),
    "unknown kind": lambda number, _: packet(255, number, b""),
    "cut": lambda number, _: packet(ATTRS, number, attributes()[:20]),
    "cut in a text": lambda number, _: packet(ATTRS, number, attributes()[:-3]),
    "more behind it": lambda number, _: packet(ATTRS, number, attributes() + b"more"),
    "unknown flags": lambda number, _: packet(ATTRS, number, b"\x7f\xff\xff\xff" + attributes()[4:]),
    "too large": lambda number, _: struct.pack(">IBI", 1 << 31, ATTRS, number),
    "too small": lambda number, _: struct.pack(">IBI", 3, ATTRS, number),
    "empty": lambda _, __: struct.pack(">I", 0),
    "fine": lambda number, _: status(number, 0),
    "an end": lambda number, _: status(number, 1),
    "without a code": lambda number, _: packet(STATUS, number, b""),
    "no text": lambda number, _: packet(STATUS, number, struct.pack(">I", 2) + text(b"\xff") + text(b"\xff")),
    "lost": lambda number, _: status(number, 7, b"lost"),
}


@pytest.mark.parametrize("name", SENSELESS)
def test_a_senseless_answer_is_a_typed_error(folder: Path, name: str) -> None:
    server = Server()
    with served(folder, server) as source:
        assert source.find("a").size == len(BYTES)
        server.odd[STAT] = SENSELESS[name]
        with pytest.raises(SourceUnavailable) as caught:
            source.find("a")
        assert caught.value.object == "a"
        del server.odd[STAT]
        assert whole(source) == BYTES


@pytest.mark.parametrize("kind", [INIT, OPEN, READ, FSTAT, OPENDIR, READDIR, REALPATH])
@pytest.mark.parametrize("name", ["nobody's", "unknown kind", "too small", "empty", "without a code"])
def test_senseless_answers_end_no_reading_untyped(folder: Path, name: str, kind: int) -> None:
    with served(folder, Server(odd={kind: SENSELESS[name]})) as source, pytest.raises(SourceUnavailable):
        listed_and_read(source)


def test_a_senseless_answer_to_the_last_request_spoils_nothing(folder: Path) -> None:
    server = Server(odd={CLOSE: lambda number, _: packet(ATTRS, number, attributes())})
    with served(folder, server) as source:
        assert whole(source) == BYTES
        assert whole(source) == BYTES


def test_a_path_without_a_name_is_a_typed_error(folder: Path) -> None:
    server = Server(odd={REALPATH: lambda number, _: packet(NAME, number, names())})
    with served(folder, server) as source, pytest.raises(SourceUnavailable, match="can't be read"):
        list(source.list())


@pytest.mark.parametrize("version", [0, 2, 4, 6, 7, 1 << 31])
def test_another_version_is_refused(folder: Path, version: int) -> None:
    server = Server(odd={INIT: lambda _, __: struct.pack(">IBI", 5, VERSION, version)})
    with served(folder, server) as source, pytest.raises(SourceUnavailable, match="ersion"):
        list(source.list())


@pytest.mark.parametrize("limit", [0, 1, BLOCK - 1, 1 << 20, 1 << 63])
def test_limits_of_any_size_are_survived(folder: Path, limit: int) -> None:
    extension = text(b"limits@openssh.com") + text(b"1")
    content = struct.pack(">IBI", 5 + len(extension), VERSION, 3) + extension
    limits = struct.pack(">QQQQ", limit, limit, limit, limit)
    server = Server(odd={INIT: lambda *_: content, EXTENDED: lambda number, _: packet(EXTENDED_REPLY, number, limits)})
    with served(folder, server) as source:
        assert whole(source) == BYTES
    server.odd[EXTENDED] = lambda number, _: packet(EXTENDED_REPLY, number, limits[:9])
    with served(folder, server) as source, pytest.raises(SourceUnavailable):
        list(source.list())


@pytest.mark.parametrize("kind", [INIT, OPEN, READ, FSTAT, OPENDIR, READDIR, STAT])
def test_an_answer_that_never_comes_ends_in_the_idle_time(folder: Path, kind: int) -> None:
    with (
        served(folder, Server(odd={kind: lambda *_: b""}), idle=0.5) as source,
        pytest.raises(SourceUnavailable, match=r"no response for 0\.5 seconds"),
    ):
        listed_and_read(source)


@pytest.mark.parametrize("name", [b".", b"..", b"a"])
def test_a_folder_that_never_ends_is_left(folder: Path, name: bytes) -> None:
    page = names(*[(name, attributes())] * 100)
    server = Server(odd={READDIR: lambda number, _: packet(NAME, number, page)})
    with (
        served(folder, server) as source,
        pytest.raises(SourceError, match=r"more files and folders than 1000|no valid name of a file or folder"),
    ):
        list(source.list())


def test_pages_without_names_end_in_the_idle_time(folder: Path) -> None:
    server = Server(odd={READDIR: lambda number, _: packet(NAME, number, names())})
    with served(folder, server, idle=0.5) as source, pytest.raises(SourceUnavailable, match="no response"):
        list(source.list())


def test_what_a_server_does_not_say_is_told(folder: Path) -> None:
    server = Server(odd={STAT: lambda number, _: packet(ATTRS, number, struct.pack(">I", 0))})
    with served(folder, server) as source, pytest.raises(SourceError, match="doesn't tell size, time and kind"):
        source.find("a")
