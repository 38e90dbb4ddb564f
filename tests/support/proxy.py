"""An HTTP proxy in front of a real server: it counts what is fetched and breaks what a test wants broken.

    with FaultProxy("http://127.0.0.1:8333") as proxy:
        source = open_source("s3://lake/", {**options, "endpoint_url": proxy.url})
        proxy.break_with(lambda fetch: Status(503) if fetch.number < 3 else None)

Requests are passed on with their Host header, so that signatures hold, unless a `host` is given in its place.
"""

from __future__ import annotations

import http
import http.client
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.faults import Echo, Fault, Rewrite, Status, altered, send
from tests.support.http_servers import Handler, http_server
from tests.support.listings import Pages


@dataclass(frozen=True, slots=True)
class Fetch:
    """One GET of an object."""

    number: int
    """Counts from 0, over the proxy's life."""
    path: str
    range: str
    """The Range header, or empty."""
    who: str = ""
    """The access key that signed it, or empty."""
    signed_address: bool = False
    """Whether the signature stands in the address."""


@dataclass
class FaultProxy:
    """The proxy; use it as a context manager.

    Args:
        upstream: The server's address.
        delay: Seconds that each answer takes at least.
        host: The Host header that the server wants; empty for the one that came.
    """

    upstream: str
    delay: float = 0.0
    host: str = ""
    adds: dict[str, str] = field(default_factory=dict)
    """Headers that every answer gets."""
    fetches: list[Fetch] = field(default_factory=list)
    """Every GET of an object, whatever became of it."""
    bytes: int = 0
    """Bytes of objects that were sent whole or in part."""
    listings: list[int] = field(default_factory=list)
    """Statuses that the next listings are answered with instead of asking the server."""
    pages: Pages | None = None
    """How listings are cut into pages, and which of them lie; None leaves them to the server."""
    refuse: Callable[[str], Status | Echo | None] = field(default=lambda _: None)
    """Asked about every request, HEADs and listings included, with the access key that signed it."""
    seen: list[dict[str, str]] = field(default_factory=list)
    """The headers of all requests."""
    requests: int = 0
    """All requests, listings and HEADs included."""
    _script: Callable[[Fetch], Fault | None] = field(default=lambda _: None)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._running = ExitStack()
        self.url = self._running.enter_context(http_server(type("Handler", (_Handler,), {"proxy": self})))
        """The proxy's own address."""
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._running.close()

    def break_with(self, script: Callable[[Fetch], Fault | None]) -> None:
        """Ask `script` about each GET of an object from now on."""
        self._script = script

    def begin(self, path: str, wanted: str, who: str, *, signed_address: bool) -> Fault | None:
        """Count a GET of an object; returns what is to go wrong with it."""
        with self._lock:
            fetch = Fetch(len(self.fetches), unquote(path), wanted, who, signed_address)
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


class _Handler(Handler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Pass the request on, and break the answer when the script says so."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        in_address = query.get("X-Amz-Credential", [""])[0].partition("/")[0]
        who = in_address or _signer(self.headers.get("Authorization", ""))
        is_object = self.command == "GET" and url.path.count("/") > 1 and "list-type" not in query
        self.proxy.count(requests=1)
        self.proxy.seen.append(dict(self.headers))
        fault = None
        if is_object:
            fault = self.proxy.begin(url.path, self.headers.get("Range", ""), who, signed_address=bool(in_address))
        fault = self.proxy.refuse(who) or fault
        if "list-type" in query and self.proxy.listings:
            fault = Status(self.proxy.listings.pop(0))
        if self.proxy.delay:
            time.sleep(self.proxy.delay)
        if isinstance(fault, Status):
            self._answer(fault.code, fault.headers(), fault.body())
        elif isinstance(fault, Echo):
            echo = fault.echo(self.path, self.headers)
            self._answer(fault.code, fault.headers(echo), fault.body(echo), reason=fault.reason(echo))
        elif "list-type" in query and self.proxy.pages:
            self._list(self.proxy.pages, query)
        else:
            status, headers, body = self._ask()
            if isinstance(fault, Rewrite):
                headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
            sent = self._answer(status, headers, altered(body, fault), fault)
            self.proxy.count(size=sent if is_object else 0)

    def _list(self, pages: Pages, query: dict[str, list[str]]) -> None:
        if token := query.get("continuation-token"):
            self._answer(200, _XML, pages.next(token[0]))
            return
        status, headers, body = self._ask()
        if status == http.HTTPStatus.OK:
            headers, body = _XML, pages.first(query.get("prefix", [""])[0], body)
        self._answer(status, headers, body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_PROPFIND = do_GET

    def _ask(self) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=30)
        try:
            sent = self.read_body()
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, self.proxy.host if self.proxy.host and name.lower() == "host" else value)
            upstream.endheaders(sent)
            answer = upstream.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            return answer.status, headers, answer.read()
        finally:
            upstream.close()

    def _answer(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes,
        fault: Fault | None = None,
        *,
        reason: str | None = None,
    ) -> int:
        """Send an answer; returns how much of its body was sent."""
        self.send_response(status, reason)
        for name, value in {**headers, **self.proxy.adds}.items():
            self.send_header(name, value)
        if "content-length" not in (name.lower() for name in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return 0
        sent = send(body, fault, self.wfile, self.connection, self.proxy.wait)
        self.close_connection |= sent < len(body)
        return sent


def _signer(authorization: str) -> str:
    """The access key in the header that AWS calls Signature Version 4."""
    return authorization.partition("Credential=")[2].partition("/")[0]


_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")
_XML = {"Content-Type": "application/xml"}
