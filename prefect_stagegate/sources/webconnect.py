"""Connections to servers of the web: whose address may be asked, through which proxy, and with whose certificates.

Where the environment's proxies are used (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY), the proxy makes the connection:
then the addresses are judged that the name has here.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
from functools import lru_cache, partial
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.sources.base import public_url
from prefect_stagegate.sources.hosts import Allowed, addresses, connected
from prefect_stagegate.sources.webwire import Wire

CONNECT_SECONDS = 5
_AUTHORITY = re.compile(r"[^:/?#]+://[^/?#]*")
_PORTS = {"http": 80, "https": 443}
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
"""What Python's client refuses in a host by an error of its own."""

Origin = tuple[str, str, int]
"""Scheme, host and port."""


def origin_of(url: str) -> Origin:
    """Whom a URL asks.

    Raises:
        SourceError: It is none of the web.
    """
    return _origin(_divided(url)[0])


def home_of(url: str, shown: str = "") -> Origin:
    """The same for a URL that a user names.

    Args:
        url: What he names.
        shown: It as people may see it, where that is another.

    Raises:
        UsageError: It is none of the web.
    """
    try:
        return origin_of(url)
    except SourceError:  # which speaks of a server; and a password may stand in what the parser says
        hint = "It is like https://host/folder/: check its host and port."
        raise UsageError("The URL is no address of the web", hint=hint, source=shown or public_url(url)) from None


class Addressed(NamedTuple):
    """How a question names what it asks for."""

    host: str
    """With the port unless it is the scheme's own."""
    target: str
    """Path and query; a whole URL for a proxy."""
    headers: dict[str, str]
    """What a proxy is told beside it."""


class Connector:
    """Makes connections, each after its address was judged.

    Args:
        ca_file: Path of a PEM file with further certificate authorities to trust.
        idle: Seconds without a byte after which a connection is given up.
        allowed: Hosts that may be asked wherever they are.
        proxied: Whether servers are asked through the proxies that the environment names.

    Raises:
        UsageError: The CA file can't be read.
    """

    def __init__(self, *, ca_file: str, idle: float, allowed: Allowed, proxied: bool) -> None:
        self._idle, self._allowed, self._proxied = idle, allowed, proxied
        self._proxies: dict[Origin, _Proxy | None] = {}
        self._tls = ssl.create_default_context()
        try:
            if ca_file:
                self._tls.load_verify_locations(ca_file)
        except OSError as error:
            raise UsageError(f"The CA file {ca_file} can't be used: {error}", hint="Check `verify`.") from error

    def connect(self, origin: Origin) -> Wire:
        """A new connection, by Python's own client: it knows TLS and tunnels.

        Raises:
            OSError: Nobody is there, or the proxy doesn't lead there.
            ForbiddenAddress: No source may be there.
            UsageError: The environment names a proxy that isn't spoken to by HTTP.
        """
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

    def addressed(self, origin: Origin, url: str) -> Addressed:
        """How a question names a URL of the origin on its connections."""
        proxy = self._proxy(origin)
        if proxy and origin[0] == "http":
            return Addressed(_host(origin), url, proxy.headers)
        return Addressed(_host(origin), _divided(url)[1], {})

    def _proxy(self, origin: Origin) -> _Proxy | None:
        """The proxy through which an origin is asked, if that may be asked; looked up once."""
        if not self._proxied:
            return None
        if origin not in self._proxies:
            proxy = _proxy_for(origin)
            for address in addresses(origin[1]) if proxy else ():
                connected((address,), self._allowed)
            self._proxies[origin] = proxy
        return self._proxies[origin]


class _Proxy(NamedTuple):
    """What is asked in an origin's place."""

    host: str
    port: int
    headers: dict[str, str]
    """Who asks it."""


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
            error.filename = f"{address[0]}:{address[1]}"
            failed = error
        else:
            made.settimeout(timeout)
            return made
    raise failed


def _proxy_for(origin: Origin) -> _Proxy | None:
    """What the environment says about an origin.

    Raises:
        UsageError: It names a proxy that isn't spoken to by HTTP.
    """
    scheme, host, port = origin
    named = getproxies()
    url = named.get(scheme) or named.get("all", "")
    if not url or proxy_bypass(f"{host}:{port}"):
        return None
    url = url if "://" in url else f"http://{url}"
    hint = "Name it as http://host:port in HTTPS_PROXY, or the server in NO_PROXY."
    wrong = UsageError(f"The proxy {public_url(url)} is not one that HTTP is spoken to", hint=hint)
    try:
        spoken, host, port = origin_of(url)
    except SourceError:
        raise wrong from None  # a password may stand in what the parser says
    if spoken != "http":
        raise wrong
    parts = urlsplit(url)
    told = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    basic = base64.b64encode(told.encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {basic}"} if parts.username else {}
    return _Proxy(host, port, headers)


@lru_cache(maxsize=256)
def _origin(address: str) -> Origin:
    """The same for a URL without path and query, remembered: taking one apart takes as long as sending a question."""
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        host.encode("idna")  # which connecting does, too
    except ValueError as error:
        raise SourceError("The server leads to what is no address") from error
    if _CONTROL.search(host):
        raise SourceError("The server leads to what is no address")
    if scheme not in _PORTS or not host:
        raise SourceError(f"The server leads to {scheme or 'nowhere'}:, which is no address of the web")
    return scheme, host, port or _PORTS[scheme]


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
