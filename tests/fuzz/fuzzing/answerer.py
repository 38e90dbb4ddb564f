"""A web server that answers what a real one answered, changed by chance.

What it answers before anything is changed is remembered. What happens to a request in a case is drawn
from the seed, the case and the request, so that threads that ask at once change nothing about it.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import socketserver
import struct
import threading
from collections import Counter
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

from fuzzing.mutations import HttpAnswer, Sending, mutate_http

PAUSE = 0.03
"""Seconds before each piece of an answer that trickles."""
SHARE = 0.35
"""Of the answers of a case, how many are changed."""
_ASKS = ("range", "depth", "accept", "if-match", "if-none-match", "if-range", "content-type")
"""Headers that an answer depends on."""
_LONG_NUMBER = re.compile(r"[0-9]{10,}")
"""A generation: it is another one in each run, and no draw may depend on it."""
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")


class Answerer:
    """The server; use it as a context manager.

    Args:
        upstream: The real server's address.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self._known: dict[tuple[Any, ...], HttpAnswer] = {}
        self._others: dict[str, HttpAnswer] = {}
        """Those that were recorded before anything was changed: what they are depends on no case."""
        self._case = ""
        self._asked: Counter[Any] = Counter()
        self._lock = threading.Lock()
        self.ended = threading.Event()
        self.changes = True
        """Whether anything is changed; the answers are recorded first, without."""

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"answerer": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def begin(self, case: str) -> None:
        """Begin a case, and end all connections that still stand still in the one before."""
        with self._lock:
            self.ended.set()
            self.ended = threading.Event()
            self._case = case
            self._asked.clear()

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Sending:
        """What is sent to a request."""
        key = (method, target, body, *(headers.get(name, "") for name in _ASKS))
        known = self._known.get(key) or self._ask(key, method, target, headers, body)
        request = (method, _LONG_NUMBER.sub("N", target), body, headers.get("range", ""))
        with self._lock:
            number = self._asked[request]
            self._asked[request] += 1
            if not self.changes:
                self._others[repr(request)] = known
        draw = random.Random(f"{self._case} {request} {number}")
        if not self.changes or draw.random() > SHARE:
            return Sending(known.written())
        return mutate_http(draw, known, [answer for _, answer in sorted(self._others.items())])

    def _ask(self, key: tuple[Any, ...], method: str, target: str, headers: dict[str, str], body: bytes) -> HttpAnswer:
        connection = http.client.HTTPConnection(self.upstream, timeout=20)
        try:
            kept = {
                name: value for name, value in headers.items() if name not in ("host", "content-length", *_HOP_BY_HOP)
            }
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in kept.items():
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            content = response.read()
            own = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
            if method != "HEAD" and "content-length" not in (name.lower() for name, _ in own):
                own.append(("Content-Length", str(len(content))))
            answer = HttpAnswer(response.status, response.reason, tuple(own), content)
        finally:
            connection.close()
        if not self.changes:  # what a single case asks is asked again, or memory grew with the cases
            self._known[key] = answer
        return answer


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients leave as they please."""


class _Handler(socketserver.StreamRequestHandler):
    answerer: Answerer
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer requests until one side ends the connection."""
        while request := self._read():
            ended = self.answerer.ended
            sending = self.answerer.answer(*request)
            with suppress(OSError):
                self._send(sending, ended)
            if sending.stalls:
                ended.wait(20)
            if sending.closes or sending.stalls:
                return
            if sending.resets:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return

    def _send(self, sending: Sending, ended: threading.Event) -> None:
        size = max(1, -(-len(sending.data) // sending.pieces))
        for start in range(0, len(sending.data), size):
            if sending.pieces > 1:
                ended.wait(PAUSE)
            self.connection.sendall(sending.data[start : start + size])

    def _read(self) -> tuple[str, str, dict[str, str], bytes] | None:
        """The next request; None when the other side left."""
        with suppress(OSError, ValueError):
            line = self.rfile.readline(65536).decode("latin-1").split()
            if len(line) != 3:
                return None
            headers: dict[str, str] = {}
            while (text := self.rfile.readline(65536).decode("latin-1").strip("\r\n")) and ":" in text:
                name, _, value = text.partition(":")
                headers[name.strip().lower()] = value.strip()
            body = self.rfile.read(int(headers.get("content-length", 0)))
            return line[0], line[1], headers, body
        return None
