"""An HTTP request, and the response to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from prefect_stagegate.http.policy import MAX_PAGE, Allowed

Proxies = tuple[tuple[str, str], ...]
"""Scheme, `all` or `no`, and its value."""
Headers = dict[str, str]
"""Of a response: names in lower case; values of one name joined by a comma."""


@dataclass(frozen=True, slots=True)
class Client:
    """How a source's requests are made. Requests of equal clients share connections."""

    allowed: Allowed = ()
    """Hosts that may be connected to whatever their address is; a tuple."""
    ca_file: str = ""
    """Path of a PEM file with certificate authorities that are trusted beside the system's."""
    idle: float = 30.0
    """Seconds without a byte after which a request fails."""
    proxies: Proxies = ()
    """The environment's, by `environment_proxies`; none: servers are connected to directly."""
    redirects: bool = True
    """Whether redirects are followed; else they are responses like others."""
    http2: bool = False
    """Whether HTTP/2 is offered over TLS."""


DEFAULT_CLIENT = Client()
_REDIRECTS = 300


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    A GET of an object names what its response must be: the exact range, the object's size, and whatever `verify`
    compares.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent to the URL's own origin; a redirect to another one keeps those of `FORWARDED_HEADERS` alone."""
    client: Client = DEFAULT_CLIENT
    method: str = "GET"
    body: bytes | None = None
    range: tuple[int, int] | None = None
    """First byte and the byte after the last one; None for all. The response must be 206 with this Content-Range."""
    size: int | None = None
    """Bytes of the whole object, where known: the response's length or range must agree with it."""
    limit: int = MAX_PAGE
    """Bytes of the body at most, where `size` is not known."""
    timeout: float | None = None
    """Seconds for all of it; None for as long as bytes come."""
    verify: Callable[[Response], None] | None = None
    """Raises a `StagegateError` for a response below 300 that is about another object. Must not block."""

    @property
    def length(self) -> int | None:
        """The bytes that the body of a good response has, where known."""
        return self.range[1] - self.range[0] if self.range else self.size


@dataclass(slots=True)
class Response:
    """The last response to a request, after redirects."""

    status: int
    headers: Headers
    url: str
    """Where it came from."""
    body: bytes | bytearray = b""
    """Empty where the body went into a buffer or a function. Of an error at most `MAX_ERROR_BODY` bytes."""
    redirects: tuple[Headers, ...] = ()
    """The headers of each redirect response, in order."""

    @property
    def is_success(self) -> bool:
        """Whether its status is below 300."""
        return self.status < _REDIRECTS
