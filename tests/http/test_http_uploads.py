"""Bodies that are read as they are sent: whole, in bounded memory, given up when they stand still."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from prefect_stagegate.errors import Cancelled, SourceError, UsageError
from prefect_stagegate.transport.http import Client, Request, fetch, loop
from prefect_stagegate.transport.transfer.retry import Stop

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
CHUNK = 1 << 16


class Zeros:
    """So many zeros, of which none is in memory before it is sent."""

    def __init__(self, size: int, on_read: Callable[[int], None] = lambda _: None) -> None:
        self._size, self._left, self._on_read = size, size, on_read
        self.begun = 0

    def __len__(self) -> int:
        return self._size

    def rewind(self) -> None:
        """Begin again."""
        self._left = self._size
        self.begun += 1

    def read(self, size: int = -1, /) -> bytes:
        """The next zeros."""
        self._on_read(self._left)
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Let a function serve one connection at a time, after the request's head was read."""

    def run(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(1)
                    if b"100-continue" in head:
                        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=run, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def swallow(connection: socket.socket, size: int) -> int:
    """Read so many bytes, or fewer when the client leaves; returns how many."""
    received = 0
    while received < size and (chunk := connection.recv(min(CHUNK, size - received))):
        received += len(chunk)
    return received


@pytest.mark.parametrize("size", [1, 5_000_000])
def test_upload_arrives_whole(size: int) -> None:
    received: list[int] = []

    def serve(connection: socket.socket) -> None:
        received.append(swallow(connection, size))
        connection.sendall(ANSWER)

    with server(serve) as url:
        assert fetch(Request(url, method="PUT", upload=Zeros(size))).status == 201
    assert received == [size]


def test_upload_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.1)
    with server(lambda _: time.sleep(4)) as url:
        begun = time.monotonic()
        with pytest.raises(SourceError, match="stopped answering"):
            fetch(Request(url, client=Client(idle=0.5), method="PUT", upload=Zeros(1 << 40)))
        assert time.monotonic() - begun < 4


def test_upload_that_moves_slowly_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.1)
    size = 40 << 20

    def serve(connection: socket.socket) -> None:
        received = 0
        while received < size:
            received += swallow(connection, 4 << 20)
            time.sleep(0.2)
        connection.sendall(ANSWER)

    with server(serve) as url:
        assert fetch(Request(url, client=Client(idle=1.0), method="PUT", upload=Zeros(size))).status == 201


def test_answer_to_an_upload_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.1)

    def serve(connection: socket.socket) -> None:
        swallow(connection, 1000)
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(40):
            connection.sendall(b"x")
            time.sleep(0.1)

    with server(serve) as url:
        begun = time.monotonic()
        with pytest.raises(SourceError, match="stopped answering"):
            fetch(Request(url, client=Client(idle=0.5), method="PUT", upload=Zeros(1000)))
        assert time.monotonic() - begun < 3


def test_check_ends_an_upload_that_waits() -> None:
    stop = Stop(None)
    threading.Timer(0.5, stop.end).start()
    with server(lambda _: time.sleep(5)) as url:
        begun = time.monotonic()
        with pytest.raises(Cancelled):
            fetch(Request(url, method="PUT", upload=Zeros(1000)), check=stop.check)
        assert time.monotonic() - begun < 2


def test_error_of_the_reader_ends_the_upload() -> None:
    def fail(left: int) -> None:
        if left < 100_000:
            raise UsageError("The file is damaged")

    def serve(connection: socket.socket) -> None:
        swallow(connection, 1 << 20)

    with server(serve) as url, pytest.raises(UsageError, match="The file is damaged"):
        fetch(Request(url, method="PUT", upload=Zeros(1 << 20, fail)))


def test_redirect_of_an_upload_is_not_followed() -> None:
    led: list[int] = []

    def serve(connection: socket.socket) -> None:
        led.append(swallow(connection, 1000))
        connection.sendall(b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    with server(serve) as url:
        assert fetch(Request(url, method="PUT", upload=Zeros(1000))).status == 307
    assert led == [1000]
