"""The HTTP client of the web sources: it knows where it is led, and what the answer is an answer to.

obstore's follows redirects wherever they lead and can't be told not to; fsspec's hands out a whole object for a range
when the server knows none. Here each connection's address is judged before it is made, nothing secret goes to another
origin, nothing is decoded, and a read is compared with what was asked. A question can be asked ahead: many are under
way then, and one thread takes the answers in turn.

Where the environment's proxies are used (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY), the proxy makes the connection:
then the addresses are judged that the name has here.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.sources.base import public_url
from prefect_stagegate.sources.hosts import Allowed, addresses, connected
from prefect_stagegate.sources.webwire import Answer, Headers, Wire

CONNECT_SECONDS = 5
MOST_REDIRECTS = 5
LONGEST_REDIRECT = 1 << 16
"""Bytes of an answer that leads elsewhere, up to which it is cheaper to read it than to connect again."""
FOLLOWING = frozenset(
    {"accept", "accept-encoding", "content-type", "depth", "if-match", "if-unmodified-since", "range", "user-agent"}
)
"""The request's headers that go along to another server; any other may hold a credential."""
ALWAYS = {"Accept-Encoding": "identity", "User-Agent": "prefect-stagegate"}
_AUTHORITY = re.compile(r"[^:/?#]+://[^/?#]*")
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)

Origin = tuple[str, str, int]
"""Scheme, host and port."""


def origin_of(url: str) -> Origin:
    """Whom a URL asks.

    Raises:
        SourceError: It is none of the web.
    """
    return _origin(_divided(url)[0])


@lru_cache(maxsize=256)
def _origin(address: str) -> Origin:
    """The same, for a URL without path and query: taking one apart takes as long as sending a question."""
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise SourceError(f"The server leads to {parts.scheme or 'nowhere'}:, which is no address of the web")
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


class Proxy(NamedTuple):
    """What is asked in an origin's place."""

    host: str
    port: int
    headers: dict[str, str]
    """Who asks it."""


class Question(NamedTuple):
    """What is asked of a server."""

    method: str
    url: str
    headers: Mapping[str, str]
    """Others than those that each request has."""
    body: bytes | None = None


class Asked(NamedTuple):
    """Where a question was sent, and its answer is not read yet."""

    wire: Wire
    fresh: bool
    """Whether the connection was made for it; the server may have closed an older one meanwhile."""


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
        self._kept: defaultdict[Origin, list[Wire]] = defaultdict(list)
        self._asked: dict[str, tuple[Question, Asked]] = {}
        """What was asked ahead, by URL."""
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
        led: list[Headers] | None = None,
    ) -> Iterator[Answer]:
        """Ask, and follow where the server leads; what is not read of the answer is not fetched.

        Args:
            method: HTTP's.
            url: What is asked.
            headers: Those of `FOLLOWING` go along wherever it leads.
            body: Goes along, too.
            led: Is given the headers of each answer that led on.

        Raises:
            OSError: Nobody answered, or not in HTTP.
            ForbiddenAddress: It leads to a place where no source may be.
            SourceError: It leads round and round, or from HTTPS to HTTP.
        """
        question = Question(method, url, headers or {}, body)
        for _ in range(MOST_REDIRECTS):
            origin = origin_of(question.url)
            wire, answer = self._answered(origin, question)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location or not self._follows:
                try:
                    yield answer
                finally:
                    self._keep(origin, wire, answer)
                return
            try:
                if answer.length is not None and answer.length <= LONGEST_REDIRECT:
                    answer.read()  # so that the connection is used again
            finally:
                self._keep(origin, wire, answer)
            if led is not None:
                led.append(answer.headers)
            going = {name: text for name, text in question.headers.items() if name.lower() in FOLLOWING}
            led_to = _led(question.url, urljoin(question.url, location))
            question = question._replace(url=led_to, headers=going)
        raise SourceError("The server leads round and round", hint="Name the address that it leads to.")

    def ask_ahead(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a question now that `ask` will be called with soon: it reads the answer then.

        Raises:
            OSError: It can't be sent.
            SourceError: It is no address of the web.
        """
        question = Question(method, url, headers or {})
        asked = self._sent(origin_of(url), question)
        with self._lock:
            _, former = self._asked.get(url, (None, None))
            self._asked[url] = question, asked
        if former:
            former.wire.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept, and what nobody waits for any more."""
        with self._lock:
            wires = [wire for wires in self._kept.values() for wire in wires]
            wires += [asked.wire for _, asked in self._asked.values()]
            self._kept.clear()
            self._asked.clear()
        for wire in wires:
            wire.close()

    def _answered(self, origin: Origin, question: Question) -> tuple[Wire, Answer]:
        """Ask, unless it was asked ahead, and read the answer's head."""
        wire, fresh = self._asked_ahead(question) or self._sent(origin, question)
        if not fresh:
            try:
                return wire, wire.answer(question.method)
            except OSError:
                wire.close()
            wire, _ = self._sent(origin, question, anew=True)
        try:
            return wire, wire.answer(question.method)
        except BaseException:
            wire.close()
            raise

    def _asked_ahead(self, question: Question) -> Asked | None:
        """The question, if it was asked ahead; another one to the same URL is forgotten."""
        former, asked = self._asked.pop(question.url, None) or (None, None)
        if asked and former != question:
            asked.wire.close()
            return None
        return asked

    def _sent(self, origin: Origin, question: Question, *, anew: bool = False) -> Asked:
        """Ask on a connection that was kept, and on a new one when the server has closed that meanwhile."""
        if not anew and (kept := self._taken(origin)):
            try:
                self._send(kept, origin, question)
            except OSError:
                kept.close()
            else:
                return Asked(kept, fresh=False)
        wire = self._connected(origin)
        try:
            self._send(wire, origin, question)
        except BaseException:
            wire.close()
            raise
        return Asked(wire, fresh=True)

    def _send(self, wire: Wire, origin: Origin, question: Question) -> None:
        headers = {**question.headers, **ALWAYS}
        if origin == self._home:
            headers |= self._own
        target, proxy = _divided(question.url)[1], self._proxy(origin)
        if proxy and origin[0] == "http":
            target, headers = question.url, headers | proxy.headers
        wire.send(question.method, _host(origin), target, headers, question.body)

    def _taken(self, origin: Origin) -> Wire | None:
        """A connection that was kept."""
        with self._lock:
            return self._kept[origin].pop() if self._kept[origin] else None

    def _connected(self, origin: Origin) -> Wire:
        """A new connection, by Python's own client: it knows TLS and tunnels."""
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
        try:
            made.connect()
        except http.client.HTTPException as error:
            made.close()
            raise OSError(f"the proxy doesn't answer in HTTP: {error}") from error
        except BaseException:
            made.close()
            raise
        return Wire(made.sock)

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

    def _keep(self, origin: Origin, wire: Wire, answer: Answer) -> None:
        """Keep a connection whose answer was read to its end; another's rest would take its time."""
        if answer.reusable:
            with self._lock:
                self._kept[origin].append(wire)
        else:
            wire.close()


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


def _host(origin: Origin) -> str:
    """Whom a question names: with the port unless it is the scheme's own."""
    scheme, host, port = origin
    host = host if host.isascii() else host.encode("idna").decode()
    host = f"[{host}]" if ":" in host else host
    return host if port == _PORTS[scheme] else f"{host}:{port}"


def _divided(url: str) -> tuple[str, str]:
    """Scheme and host of a URL, and path and query: what is asked of whom."""
    whole, _, _ = url.partition("#")
    found = _AUTHORITY.match(whole)
    at = found.end() if found else len(whole)
    target = whole[at:]
    return whole[:at], target if target.startswith("/") else "/" + target


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
