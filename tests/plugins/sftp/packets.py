"""An SFTP server whose packets are changed by chance: a real one answers behind it, on its standard streams.

SSH's own packets are encrypted and signed, so what is changed is what they carry: the packets of the SFTP protocol.
"""

from __future__ import annotations

import asyncio
import random
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import asyncssh
from fuzzing.mutations import mutate

SHARE = 0.06
"""Of the packets of a case, how many are changed."""
_INIT, _HANDLE = 1, 102
_KINDS = (0, 2, 101, 102, 103, 104, 105, 200, 255)
_WORD = struct.Struct(">I")
_HEAD = struct.Struct(">BI")


class SftpAnswerer:
    """The server; use it as a context manager.

    Args:
        folder: For its keys.
        served: What the real server serves as `/`.
    """

    def __init__(self, folder: Path, served: Path) -> None:
        self.folder, self._served = folder, served
        self.changes = True
        """Whether anything is changed."""
        self._case = ""
        self._asked: Counter[bytes] = Counter()
        self._paths: dict[bytes, bytes] = {}
        """What each handle was opened by."""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._numbers: dict[int, tuple[_Session, int, bytes]] = {}
        self._last = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("host", "user"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(self.folder / name)
            key.write_public_key(self.folder / f"{name}.pub")
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name("rclone"), "--config=/dev/null", "serve", "sftp", "--stdio", self._served],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._write(bytes([_INIT]) + _WORD.pack(3))
        self._version = self._read()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(20)
        threading.Thread(target=self._relay, daemon=True).start()
        self.port = server.get_port()
        host = (self.folder / "host.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host}")
        self.options = {
            "username": "fuzz",
            "key_filename": str(self.folder / "user"),
            "known_hosts": str(self.folder / "known_hosts"),
        }
        self.url = f"sftp://127.0.0.1:{self.port}/"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def begin(self, case: str) -> None:
        """Begin a case."""
        self._case = case
        self._asked.clear()

    def ask(self, session: _Session, packet: bytes) -> None:
        """Pass a request on, under a number of our own; the answer comes to `session`."""
        if packet[0] == _INIT or len(packet) < _HEAD.size:
            session.answer(self._version, packet)
            return
        kind, number = _HEAD.unpack_from(packet)
        self._last = (self._last + 1) & 0xFFFFFFFF
        self._numbers[self._last] = (session, number, packet)
        self._write(_HEAD.pack(kind, self._last) + packet[_HEAD.size :])

    def changed(self, answer: bytes, request: bytes) -> list[bytes]:
        """What is sent in place of an answer; empty bytes end the connection."""
        request_key = request[:1] + self._by_path(request[_HEAD.size :])
        if answer[:1] == bytes([_HANDLE]):
            self._paths[answer[_HEAD.size :]] = request_key
        number = self._asked[request_key]
        self._asked[request_key] += 1
        draw = random.Random(f"{self._case} {request_key!r} {number}")
        if not self.changes or draw.random() > SHARE:
            return [_framed(answer)]
        return _changed(draw, answer)

    def _by_path(self, body: bytes) -> bytes:
        """A request's body, with what a handle was opened by in its place: the handles of each run are others."""
        end = _WORD.size + _WORD.unpack_from(body)[0] if len(body) >= _WORD.size else 0
        return self._paths.get(body[:end], body[:end]) + body[end:]

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[str(self.folder / "host")],
            authorized_client_keys=str(self.folder / "user.pub"),
            session_factory=None,
            server_factory=lambda: _Server(self),
            login_timeout=10,
        )

    def _write(self, packet: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(_framed(packet))
        self._process.stdin.flush()

    def _read(self) -> bytes:
        assert self._process.stdout
        head = self._process.stdout.read(_WORD.size)
        return self._process.stdout.read(_WORD.unpack(head)[0]) if len(head) == _WORD.size else b""

    def _relay(self) -> None:
        with suppress(ValueError, OSError):
            while packet := self._read():
                kind, number = _HEAD.unpack_from(packet)
                session, own, request = self._numbers.pop(number)
                answer = _HEAD.pack(kind, own) + packet[_HEAD.size :]
                self._loop.call_soon_threadsafe(session.answer, answer, request)


def _framed(packet: bytes) -> bytes:
    return _WORD.pack(len(packet)) + packet


def _changed(draw: random.Random, answer: bytes) -> list[bytes]:
    """An answer changed as a broken or hostile server would; an empty piece ends the connection."""
    kind, number = _HEAD.unpack_from(answer) if len(answer) >= _HEAD.size else (0, 0)
    return draw.choice(_PACKET_CHANGES)(draw, answer, kind, number)


_PacketChange = Callable[[random.Random, bytes, int, int], list[bytes]]


def _any_bytes(draw: random.Random, answer: bytes, _kind: int, _number: int) -> list[bytes]:
    return [_framed(mutate(draw, answer))]


def _content(draw: random.Random, answer: bytes, _kind: int, _number: int) -> list[bytes]:
    return [_framed(answer[: _HEAD.size] + mutate(draw, answer[_HEAD.size :]))]


def _word(draw: random.Random, answer: bytes, _kind: int, _number: int) -> list[bytes]:
    """Put a strange number in the place of four bytes: a length, a count, a flag."""
    rest = answer[_HEAD.size :]
    offset = draw.randrange(max(1, len(rest) - 3))
    word = draw.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
    return [_framed(answer[: _HEAD.size] + rest[:offset] + _WORD.pack(word) + rest[offset + 4 :])]


def _kind(draw: random.Random, answer: bytes, _kind: int, number: int) -> list[bytes]:
    return [_framed(_HEAD.pack(draw.choice(_KINDS), number) + answer[_HEAD.size :])]


def _number(draw: random.Random, answer: bytes, kind: int, number: int) -> list[bytes]:
    other = draw.choice((number + 1, 0, 0xFFFFFFFF)) & 0xFFFFFFFF
    return [_framed(_HEAD.pack(kind, other) + answer[_HEAD.size :])]


def _status(draw: random.Random, _answer: bytes, _kind: int, number: int) -> list[bytes]:
    status = _HEAD.pack(101, number) + _WORD.pack(draw.choice((0, 1, 2, 3, 4, 5, 8, 31, 0xFFFFFFFF)))
    return [_framed(status + draw.choice((b"", _WORD.pack(0) * 2, _WORD.pack(0xFFFF) + b"x", b"\xff" * 9)))]


def _length(draw: random.Random, answer: bytes, _kind: int, _number: int) -> list[bytes]:
    size = len(answer)
    return [_WORD.pack(draw.choice((0, 1, size + 1, size - 1, 0x7FFFFFFF, 0xFFFFFFFF))) + answer]


def _cut_off(draw: random.Random, answer: bytes, _kind: int, _number: int) -> list[bytes]:
    return [_framed(answer)[: draw.randrange(len(answer) + 4)], b""]


def _in_pieces(_draw: random.Random, answer: bytes, _kind: int, _number: int) -> list[bytes]:
    data = _framed(answer)
    return [*(bytes([byte]) for byte in data[:64]), *([data[64:]] if data[64:] else ())]


_PACKET_CHANGES: tuple[_PacketChange, ...] = (
    *(_content,) * 3, *(_word,) * 2, _any_bytes, _kind, _number, _status, _length, _cut_off, _in_pieces,
    lambda _draw, answer, _kind, _number: [_framed(answer)] * 2,
    lambda _draw, _answer, _kind, _number: [],
)  # fmt: skip
"""The last two: the answer twice, and none at all."""


class _Server(asyncssh.SSHServer):
    def __init__(self, answerer: SftpAnswerer) -> None:
        self._answerer = answerer

    def session_requested(self) -> Any:
        """Give each channel a session of its own."""
        return _Session(self._answerer)


class _Session(asyncssh.SSHServerSession[bytes]):
    """One channel: cuts what comes into packets."""

    def __init__(self, answerer: SftpAnswerer) -> None:
        self._answerer = answerer
        self._came = b""
        self._channel: Any = None

    def connection_made(self, chan: Any) -> None:
        """Take bytes, not text."""
        self._channel = chan
        chan.set_encoding(None)

    def subsystem_requested(self, subsystem: str) -> bool:
        """Serve SFTP only."""
        return subsystem == "sftp"

    def data_received(self, data: Any, datatype: Any) -> None:  # noqa: ARG002
        """Pass on each packet that is whole."""
        self._came += data
        while len(self._came) >= 4 and len(self._came) >= (end := 4 + _WORD.unpack_from(self._came)[0]):
            packet, self._came = self._came[4:end], self._came[end:]
            self._answerer.ask(self, packet)

    def answer(self, answer: bytes, request: bytes) -> None:
        """Send what the answerer makes of an answer."""
        with suppress(OSError, asyncssh.Error):  # the client left
            for piece in self._answerer.changed(answer, request):
                if piece:
                    self._channel.write(piece)
                else:
                    self._channel.close()
