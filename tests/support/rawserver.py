"""A server that says whatever bytes a test gives it, over TCP or TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Script = Callable[[bytes, socket.socket], bytes | None]
"""Answers the head of a request with bytes, or by itself; None closes the connection."""

_MAX_HEAD = 1 << 20


class RawServer:
    """Answers each request by a script and keeps the connection until that returns None.

    Args:
        script: What it answers; bytes are the same answer to each request.
        tls: Its certificate.
    """

    def __init__(self, script: Script | bytes, tls: ssl.SSLContext | None = None) -> None:
        self._script: Script = script if callable(script) else lambda _head, _connection: script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"localhost:{self.port}" if tls else f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.address}"
        self.requests: list[bytes] = []
        """The head of each request."""
        self.connections: list[socket.socket] = []
        self.ended = threading.Semaphore(0)
        """Released when a connection has ended."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with (
                plain,
                suppress(OSError),
                self._tls.wrap_socket(plain, server_side=True) if self._tls else plain as connection,
            ):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.append(connection)
                while head := _head(connection):
                    self.requests.append(head)
                    answer = self._script(head, connection)
                    if answer is None:
                        break
                    connection.sendall(answer)
        finally:
            self.ended.release()

    def close(self) -> None:
        """Accept nobody any more, and close every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _head(connection: socket.socket) -> bytes:
    """The next request's head, empty at the end. A body of a known length is read and dropped."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (byte := connection.recv(1)) or len(head) > _MAX_HEAD:
            return b""
        head += byte
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            left = int(line.partition(b":")[2])
            while left > 0 and (chunk := connection.recv(left)):
                left -= len(chunk)
    return head


@contextmanager
def raw_server(script: Script | bytes, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """Run a server while the block runs."""
    server = RawServer(script, tls)
    try:
        yield server
    finally:
        server.close()


def response(
    body: bytes = b"hello", status: str = "200 OK", headers: dict[str, str] | None = None, *, version: str = "1.1"
) -> bytes:
    """A well-formed response."""
    lines = [f"HTTP/{version} {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
