"""An HTTP proxy in front of a real server: it counts what is fetched and breaks what a test wants broken.

    with FaultProxy("http://127.0.0.1:8333") as proxy:
        source = open_source("s3://lake/", {**options, "endpoint_url": proxy.url})
        proxy.break_with(lambda fetch: Status(503) if fetch.number < 3 else None)

Requests are passed on with their Host header, so that signatures hold.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Fetch:
    """One GET of an object."""

    number: int
    """Counts from 0, over the proxy's life."""
    path: str
    range: str
    """The Range header, or empty."""


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with this status instead of asking the server."""

    code: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Send so many bytes of the body and close the connection."""

    after: int


@dataclass(frozen=True, slots=True)
class Flip:
    """Change one byte of the body."""

    at: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Send so many bytes of the body and then nothing, until the proxy ends."""

    after: int


Fault = Status | Truncate | Flip | Stall


@dataclass
class FaultProxy:
    """The proxy; use it as a context manager.

    Args:
        upstream: The server's address.
        delay: Seconds that each answer takes at least.
    """

    upstream: str
    delay: float = 0.0
    adds: dict[str, str] = field(default_factory=dict)
    """Headers that every answer gets."""
    fetches: list[Fetch] = field(default_factory=list)
    """Every GET of an object, whatever became of it."""
    bytes: int = 0
    """Bytes of objects that were sent whole or in part."""
    listings: list[int] = field(default_factory=list)
    """Statuses that the next listings are answered with instead of asking the server."""
    requests: int = 0
    """All requests, listings and HEADs included."""
    _script: Callable[[Fetch], Fault | None] = field(default=lambda _: None)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The proxy's own address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def break_with(self, script: Callable[[Fetch], Fault | None]) -> None:
        """Ask `script` about each GET of an object from now on."""
        self._script = script

    def begin(self, path: str, wanted: str) -> Fault | None:
        """Count a GET of an object; returns what is to go wrong with it."""
        with self._lock:
            fetch = Fetch(len(self.fetches), unquote(path), wanted)
            self.fetches.append(fetch)
        return self._script(fetch)

    def count(self, *, requests: int = 0, size: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.requests += requests
            self.bytes += size

    def wait(self, seconds: float | None = None) -> None:
        """Wait, though not beyond the proxy's end."""
        self._ended.wait(seconds)


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Pass the request on, and break the answer when the script says so."""
        url = urlsplit(self.path)
        is_object = self.command == "GET" and url.path.count("/") > 1 and "list-type" not in url.query
        self.proxy.count(requests=1)
        fault = self.proxy.begin(url.path, self.headers.get("Range", "")) if is_object else None
        if "list-type" in url.query and self.proxy.listings:
            self._answer(self.proxy.listings.pop(0), {}, b"")
            return
        if self.proxy.delay:
            time.sleep(self.proxy.delay)
        if isinstance(fault, Status):
            self._answer(fault.code, {}, b"")
            return
        status, headers, body = self._ask()
        if isinstance(fault, Flip):
            body = body[: fault.at] + bytes([body[fault.at] ^ 1]) + body[fault.at + 1 :]
        sent = body[: fault.after] if isinstance(fault, Truncate | Stall) else body
        self._answer(status, headers, sent, length=len(body))
        if is_object:
            self.proxy.count(size=len(sent))
        if len(sent) < len(body):
            self.close_connection = True
            if isinstance(fault, Stall):
                self.wfile.flush()
                self.proxy.wait()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def _ask(self) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=30)
        try:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(sent)
            answer = upstream.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            return answer.status, headers, answer.read()
        finally:
            upstream.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, length: int = 0) -> None:
        self.send_response(status)
        for name, value in {**headers, **self.proxy.adds}.items():
            self.send_header(name, value)
        if "content-length" not in (name.lower() for name in headers):
            self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")
