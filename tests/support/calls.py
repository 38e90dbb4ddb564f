"""A relay in front of a Prefect server that counts the API calls of whoever goes through it.

    with CallCounter("http://127.0.0.1:4200/api") as counter:
        subprocess.run([…], env={**os.environ, "PREFECT_API_URL": counter.url})
        counter.calls

Bytes are passed on as they are, web sockets too; the opening of one counts as one call.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_ASKED = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")
_ANSWERED = re.compile(rb"HTTP/1\.1 (\d{3})")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


_Pending = deque[tuple[float, re.Match[bytes]]]
"""When each request that waits for its answer began, and its first line."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    at: float
    """When it was asked, by the monotonic clock."""
    method: str
    path: str
    """Without its query, and with `ID` for each id."""
    status: int
    """Of the answer."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class CallCounter:
    """The relay; use it as a context manager.

    Args:
        upstream: The API's address: scheme http, with its path.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self._address = urlsplit(upstream)
        self.calls: list[Call] = []
        """In the order in which they were answered."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends = ExitStack()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._ends.close()

    @property
    def url(self) -> str:
        """What stands for the API's address."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}{self._address.path}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._ends.enter_context(closing(self._listener.accept()[0]))
                server = socket.create_connection((self._address.hostname, self._address.port))
                self._ends.enter_context(closing(server))
                pending: _Pending = deque()
                threading.Thread(target=self._ask, args=(client, server, pending), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, pending), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, pending: _Pending) -> None:
        for data in _passed(client, server):
            # A client waits for each answer, so a request always begins with what arrives next.
            if head := _ASKED.match(data):
                pending.append((time.monotonic(), head))

    def _answer(self, server: socket.socket, client: socket.socket, pending: _Pending) -> None:
        for data in _passed(server, client):
            if pending and (answer := _ANSWERED.match(data)):
                at, head = pending.popleft()
                path = _ID.sub("ID", head[2].decode().partition("?")[0])
                self.calls.append(Call(at, head[1].decode(), path, int(answer[1])))


def _passed(source: socket.socket, sink: socket.socket) -> Iterator[bytes]:
    """Pass on what arrives, each time after it was looked at, until one side ends."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            yield data
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
