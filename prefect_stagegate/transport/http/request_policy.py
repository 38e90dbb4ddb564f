"""What an HTTP request may do: which addresses it connects to, which redirects it follows, which statuses are retried.

URLs come from specs, and redirects from servers: neither is trusted. Loopback and private addresses are allowed, since
stores on the premises have them. Link-local addresses and other addresses of cloud metadata services are blocked: such
a service hands the machine's credentials to any process on it. `STAGEGATE_ALLOWED_HOSTS` names exceptions.
"""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from prefect_stagegate.errors import SourceError, UsageError

BLOCKED = (
    ("169.254.0.0/16", "link-local; metadata of most clouds", "RFC 3927; ECS: AWS, task-iam-roles.html"),
    ("fe80::/10", "link-local", "RFC 4291"),
    ("fd00:ec2::/32", "AWS: metadata at ::254, EKS's credentials at ::23", "AWS, instancedata-data-retrieval.html"),
    ("fd20:ce::/32", "Google Cloud", "Google Cloud, compute/docs/metadata/querying-metadata"),
    ("168.63.129.16/32", "Azure's wire server", "Azure, what-is-ip-address-168-63-129-16"),
    ("100.100.100.200/32", "Alibaba Cloud", "Alibaba Cloud, ecs/user-guide/view-instance-metadata"),
    ("fd00:c1::a9fe:a9fe/128", "Oracle Cloud", "cloud-init, sources/DataSourceOracle.py"),
    ("192.0.0.192/32", "Oracle Cloud Classic", "Oracle, retrieving-instance-metadata.html"),
    ("fd00:42::42/128", "Scaleway", "cloud-init, datasources/scaleway.html"),
    ("fd00:a9fe:a9fe::1/128", "Linode (Akamai)", "cloud-init, datasources/akamai.html"),
)
"""Networks of link-local addresses and of the clouds' metadata services: each with its owner and documentation."""
BLOCKED_NETWORKS = tuple(ip_network(network) for network, _, _ in BLOCKED)
MAX_REDIRECTS = 5
"""Redirects that one request follows."""
MAX_PAGE = 256 << 20
"""Bytes of one page of a listing, or of a manifest."""
MAX_DOCUMENT = 32 << 20
"""Bytes of a JSON document that is parsed whole, which may take 27 times its size of memory."""
MAX_ERROR_BODY = 64 << 10
"""Bytes that are kept of the body of an error response or a redirect."""
CONNECT_SECONDS = 5
"""Time limit of one connection: DNS, TCP and TLS."""
PAGE_SECONDS = 600.0
"""Time limit of one whole page of a listing."""
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later (RFC 9110, 15; RFC 6585; RFC 8470)."""
BUSY_STATUSES = frozenset({429, 503})
"""Statuses by which a server asks for fewer requests."""
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
FORWARDED_HEADERS = frozenset(
    {"accept", "accept-encoding", "content-type", "depth", "if-match", "if-unmodified-since", "range", "user-agent"}
)
"""Request headers that a redirect to another origin keeps. Any other may hold a credential."""
ALLOW_HINT = "If the address is intended, add its host to STAGEGATE_ALLOWED_HOSTS."

_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))  # RFC 6052, and of a site's own (RFC 8215)
_IPV4_BITS = 0xFFFFFFFF
_PORTS = {"http": 80, "https": 443}
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SENDABLE = re.compile(r"[\t -~]*")
_HOST = re.compile(r"(?!\.|.*\.\.)[A-Za-z0-9._:-]+")  # libcurl would decode `%`
_PLAIN_URL = re.compile(r"https?://[a-z0-9.:\[\]-]+/[!-\"$-~]*")
_SCHEME = re.compile(r"^(?:[^/?#]*:)?//")
_SECRET_PART = re.compile(r"[?#].*", re.DOTALL)

Allowed = Collection[str]
"""Names or addresses of hosts that are never blocked."""


class ForbiddenAddress(SourceError):
    """Refused to connect to a blocked address."""


class UrlOrigin(NamedTuple):
    """A URL's origin (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """Host and port, as errors show them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def origin_of(url: str) -> UrlOrigin:
    """The origin of an http or https URL.

    Raises:
        SourceError: The URL has another scheme, or no usable host or port.
    """
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise SourceError("The URL has no usable host or port") from error
    if scheme not in _PORTS:
        raise SourceError(f"The URL's scheme is {scheme or 'missing'}: only http and https are supported")
    if not _HOST.fullmatch(host):
        raise SourceError("The URL has no usable host or port")
    return UrlOrigin(scheme, host, port or _PORTS[scheme])


def wire_url(url: str) -> str:
    """The URL for libcurl: without fragment, user and password, with the host in ASCII and the path encoded.

    >>> wire_url("https://me:secret@bücher.example/a b?c=ü#top")
    'https://xn--bcher-kva.example/a%20b?c=%C3%BC'
    """
    # The common case, without parsing: this runs for each request.
    if _PLAIN_URL.fullmatch(url):
        return url
    origin, parts = origin_of(url), urlsplit(url)
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    netloc = host if parts.port is None else f"{host}:{origin.port}"
    head, _, _ = url.partition("#")
    target = head.partition("://")[2]
    target = target[len(parts.netloc) :]
    # `%` is safe: what is encoded already must not be encoded twice.
    safe = quote(target, safe="!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~", errors="surrogateescape")
    return f"{origin.scheme}://{netloc}{safe if safe.startswith('/') else '/' + safe}"


def login_of(url: str) -> dict[str, str]:
    """The Authorization header for the user and password in a URL; none without a user.

    >>> login_of("https://me:p%40ss@host/"), login_of("https://host/")
    ({'Authorization': 'Basic bWU6cEBzcw=='}, {})
    """
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}


def header_lines(headers: Mapping[str, str]) -> list[str]:
    """The header lines for libcurl, which sends them unchecked.

    Raises:
        UsageError: One can't be sent.
    """
    # libcurl would drop a header without a value; a semicolon makes it send the name alone.
    lines = [f"{name}: {value}" if value else f"{name};" for name, value in headers.items()]
    # All at once: this runs for each request.
    if ":" in "".join(headers) or not _SENDABLE.fullmatch("".join(lines)):
        require_sendable(headers)
    return lines


def require_sendable(headers: Mapping[str, str]) -> None:
    """Refuse headers that can't be sent, or would add others by a line break.

    Raises:
        UsageError: A name or value holds a line break, another control character, or one that is not ASCII.
    """
    for name, value in headers.items():
        if _UNSENDABLE.search(name) or _UNSENDABLE.search(value) or ":" in name:
            raise UsageError(f"The header {name!r} holds a control character", hint="Remove line breaks from it.")
        if not (name.isascii() and value.isascii()):
            raise UsageError(f"The header {name!r} holds a character that is not ASCII", hint="Encode it.")


def require_allowed(host_or_url: str, allowed: Allowed, *, resolve: bool = True) -> None:
    """Refuse a host that is a blocked address, or resolves to one now. A host that doesn't resolve passes.

    `host_or_url` is a URL, `host`, `host:port`, or empty. Without `resolve`, names pass: they may be of buckets.

    Raises:
        UsageError: Its address is blocked.
    """
    host = _host(host_or_url)
    if address := blocked_address(host, allowed, resolve=resolve):
        # The error must not show user, password or query, which may be secrets.
        shown = _SECRET_PART.sub("", host_or_url.rpartition("@")[2] if "@" in host_or_url else host_or_url)
        raise UsageError(refusal(host, address), hint=ALLOW_HINT, source=shown)


def blocked_address(host: str, allowed: Allowed, *, resolve: bool = True) -> str:
    """The host's first blocked address, or empty. Resolves a name by DNS, unless told not to."""
    found = addresses(host, 0 if resolve else socket.AI_NUMERICHOST) if host else []
    return next((address for address in found if is_blocked(address, allowed)), "")


def is_blocked(address: str, allowed: Allowed) -> bool:
    """Whether an IP address, in any notation, is blocked and belongs to no allowed host."""
    inside = any(form in network for form in _forms(address) for network in BLOCKED_NETWORKS)
    return inside and not any(address in addresses(host) for host in allowed)


def refusal(host: str, address: str) -> str:
    """The sentence about a blocked address."""
    place = host if host == address else f"{host} ({address})"
    return f"Refused to connect to {place}: link-local and cloud-metadata addresses are blocked"


def addresses(host: str, flags: int = 0) -> list[str]:
    """The IP addresses of a host; an address stands for itself; none when the name doesn't resolve.

    `flags` are those of `getaddrinfo`.
    """
    with suppress(ValueError):
        return [str(ip_address(host))]  # without DNS, so that it works on machines without IPv6
    with suppress(OSError, UnicodeError):
        entries = socket.getaddrinfo(host.rstrip("."), None, type=socket.SOCK_STREAM, flags=flags)
        return [str(entry[4][0]) for entry in entries]
    return []


def redirect_url(url: str, location: str, count: int) -> str:
    """The URL that a redirect leads to.

    `location` may be relative; `count` redirects were followed before this one.

    Raises:
        SourceError: Too many redirects, one from https to http, or one to no http or https URL.
    """
    if count >= MAX_REDIRECTS:
        raise SourceError(f"Too many redirects ({MAX_REDIRECTS})", hint="Use the URL that the redirects end at.")
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise SourceError("The Location of the redirect is no usable URL") from error
    origin = origin_of(target)
    # Without TLS anybody on the way could read or change what the first URL protects.
    if origin_of(url).scheme == "https" and origin.scheme != "https":
        message = f"Refused to follow a redirect from https to {origin.address} without TLS"
        raise SourceError(message, hint="If this is intended, use the URL that it redirects to.")
    return target


def redirect_headers(headers: Mapping[str, str], start: UrlOrigin, target: UrlOrigin) -> dict[str, str]:
    """The headers of a redirected request: all at the first request's origin, else those of `FORWARDED_HEADERS`."""
    if start == target:
        return dict(headers)
    return {name: value for name, value in headers.items() if name.lower() in FORWARDED_HEADERS}


def _host(place: str) -> str:
    with suppress(ValueError):
        return str(ip_address(place))
    with suppress(ValueError):
        # Without the scheme, since `urlsplit` finds no host behind one with an underscore.
        return urlsplit("//" + _SCHEME.sub("", place)).hostname or ""
    return ""


def _forms(address: str) -> Iterator[IPv4Address | IPv6Address]:
    """The address, and the IPv4 address that an IPv6 one embeds."""
    with suppress(ValueError):
        parsed = ip_address(address.partition("%")[0])
        yield parsed
        if isinstance(parsed, IPv6Address):
            number = int(parsed)
            if number >> 32 == 0:  # IPv4-compatible (RFC 4291)
                yield IPv4Address(number & _IPV4_BITS)
            if any(parsed in network for network in _NAT64):  # after a prefix of 48, 56, 64 or 96 bits, without byte 8
                data = parsed.packed[:8] + parsed.packed[9:]
                yield from (IPv4Address(data[start : start + 4]) for start in (6, 7, 8, 11))
            yield from filter(None, (parsed.ipv4_mapped, parsed.sixtofour))
