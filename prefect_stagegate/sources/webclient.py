"""The HTTP client of the web sources: it knows where it is led, and what the answer is an answer to.

obstore's follows redirects wherever they lead and can't be told not to; fsspec's hands out a whole object for a range
when the server knows none. So this one stands on Python's own: each connection's address is judged before it is made,
nothing secret goes to another origin, nothing is decoded, and a read is compared with what was asked.

Where the environment's proxies are used (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY), the proxy makes the connection:
then the addresses are judged that the name has here.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.sources.base import public_url
from prefect_stagegate.sources.hosts import Allowed, addresses, connected

CONNECT_SECONDS = 5
MOST_REDIRECTS = 5
LONGEST_REDIRECT = 1 << 16
"""Bytes of an answer that leads elsewhere, up to which it is cheaper to read it than to connect again."""
FOLLOWING = frozenset(
    {"accept", "accept-encoding", "content-type", "depth", "if-match", "if-unmodified-since", "range", "user-agent"}
)
"""The request's headers that go along to another server; any other may hold a credential."""
ALWAYS = {"Accept-Encoding": "identity", "User-Agent": "prefect-stagegate"}
_REDIRECTS = (301, 302, 303, 307, 308)

Origin = tuple[str, str, int]
"""Scheme, host and port."""


def origin_of(url: str) -> Origin:
    """Whom a URL asks.

    Raises:
        SourceError: It is none of the web.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError(f"The server leads to {parts.scheme or 'nowhere'}:, which is no address of the web")
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


class Proxy(NamedTuple):
    """What is asked in an origin's place."""

    host: str
    port: int
    headers: dict[str, str]
    """Who asks it."""


class WebClient:
    """Connections that are kept and used again by many threads.

    Args:
        home: A URL of the only origin that may see `headers`.
        headers: Sent with each request there; credentials among them.
        ca_file: Path of a PEM file with further certificate authorities to trust.
        idle: Seconds without a byte after which a read is given up; in all it may take as long as it likes.
        allowed: Hosts that may be asked wherever they are.
        proxied: Whether servers are asked through the proxies that the environment names.
        follows: Whether it goes where servers lead; else their answer is given as it is.

    Raises:
        UsageError: The CA file can't be read.
    """

    def __init__(
        self,
        home: str,
        headers: Mapping[str, str],
        *,
        ca_file: str,
        idle: float,
        allowed: Allowed,
        proxied: bool = False,
        follows: bool = True,
    ) -> None:
        self._home, self._own = origin_of(home), dict(headers)
        self._idle, self._allowed, self._proxied, self._follows = idle, allowed, proxied, follows
        self._proxies: dict[Origin, Proxy | None] = {}
        self._kept: defaultdict[Origin, list[http.client.HTTPConnection]] = defaultdict(list)
        self._lock = threading.Lock()
        self._tls = ssl.create_default_context()
        try:
            if ca_file:
                self._tls.load_verify_locations(ca_file)
        except OSError as error:
            raise UsageError(f"The CA file {ca_file} can't be used: {error}", hint="Check `verify`.") from error

    @contextmanager
    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        led: list[Message] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Ask, and follow where the server leads; what is not read of the answer is not fetched.

        Args:
            method: HTTP's.
            url: What is asked.
            headers: Those of `FOLLOWING` go along wherever it leads.
            body: Goes along, too.
            led: Is given the headers of each answer that led on.

        Raises:
            OSError, http.client.HTTPException: Nobody answered, or not in HTTP.
            ForbiddenAddress: It leads to a place where no source may be.
            SourceError: It leads round and round, or from HTTPS to HTTP.
        """
        for _ in range(MOST_REDIRECTS):
            origin = origin_of(url)
            sent = {**(headers or {}), **ALWAYS}
            if origin == self._home:
                sent |= self._own
            target, proxy = _target(url), self._proxy(origin)
            if proxy and origin[0] == "http":
                target, sent = url, sent | proxy.headers
            connection, answer = self._answered(origin, method, target, sent, body)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location or not self._follows:
                try:
                    yield answer
                finally:
                    self._keep(origin, connection, answer)
                return
            try:
                if answer.length is not None and answer.length <= LONGEST_REDIRECT:
                    answer.read()  # so that the connection is used again
            finally:
                self._keep(origin, connection, answer)
            if led is not None:
                led.append(answer.headers)
            url = _led(url, urljoin(url, location))
            headers = {name: text for name, text in (headers or {}).items() if name.lower() in FOLLOWING}
        raise SourceError("The server leads round and round", hint="Name the address that it leads to.")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            for connections in self._kept.values():
                for connection in connections:
                    connection.close()
            self._kept.clear()

    def _answered(
        self, origin: Origin, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask on a connection that was kept, and on a new one when the server has closed that meanwhile."""
        with self._lock:
            kept = self._kept[origin].pop() if self._kept[origin] else None
        if kept:
            try:
                kept.request(method, target, body, dict(headers))
                return kept, kept.getresponse()
            except (OSError, http.client.HTTPException):
                kept.close()
        connection = self._connection(origin)
        try:
            connection.request(method, target, body, dict(headers))
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _connection(self, origin: Origin) -> http.client.HTTPConnection:
        scheme, host, port = origin
        proxy = self._proxy(origin)
        asked = (proxy.host, proxy.port) if proxy else (host, port)
        if scheme == "https":
            made: Any = http.client.HTTPSConnection(*asked, timeout=self._idle, context=self._tls)
            if proxy:
                made.set_tunnel(host, port, proxy.headers)
        else:
            made = http.client.HTTPConnection(*asked, timeout=self._idle)
        made._create_connection = partial(_judged_connection, self._allowed)  # noqa: SLF001 - Python's own hook
        return made  # type: ignore[no-any-return]

    def _proxy(self, origin: Origin) -> Proxy | None:
        """The proxy through which an origin is asked, if that may be asked; looked up once."""
        if not self._proxied:
            return None
        if origin not in self._proxies:
            proxy = _proxy_for(origin)
            for address in addresses(origin[1]) if proxy else ():
                connected((address,), self._allowed)
            self._proxies[origin] = proxy
        return self._proxies[origin]

    def _keep(self, origin: Origin, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        """Keep a connection whose answer was read to its end; another's rest would take its time."""
        if answer.isclosed() and not answer.will_close:
            with self._lock:
                self._kept[origin].append(connection)
        else:
            answer.close()
            connection.close()


def _judged_connection(allowed: Allowed, address: tuple[str, int], timeout: float, *_: object) -> socket.socket:
    """Connect as `socket.create_connection`, after each address was judged: a name may have changed its own."""
    failed: OSError = OSError(f"the name {address[0]} is not known")
    for family, kind, protocol, *_name, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        connected(tuple(place), allowed)
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(CONNECT_SECONDS)
            made.connect(place)
        except OSError as error:
            made.close()
            failed = error
        else:
            made.settimeout(timeout)
            return made
    raise failed


def _proxy_for(origin: Origin) -> Proxy | None:
    """What the environment says about an origin.

    Raises:
        UsageError: It names a proxy that isn't spoken to by HTTP.
    """
    scheme, host, port = origin
    named = getproxies()
    url = named.get(scheme) or named.get("all", "")
    if not url or proxy_bypass(f"{host}:{port}"):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        hint = "Name it as http://host:port in HTTPS_PROXY, or the server in NO_PROXY."
        raise UsageError(f"The proxy {public_url(url)} is not one that HTTP is spoken to", hint=hint)
    told = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    basic = base64.b64encode(told.encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {basic}"} if parts.username else {}
    return Proxy(parts.hostname, parts.port or 80, headers)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _led(before: str, after: str) -> str:
    """Where a redirect leads.

    Raises:
        SourceError: Out of TLS.
    """
    if before.startswith("https://") and not after.startswith("https://"):
        raise SourceError(
            f"The server leads from https to {origin_of(after)[1]} without TLS",
            hint="Name that address, if it is meant.",
        )
    return after
