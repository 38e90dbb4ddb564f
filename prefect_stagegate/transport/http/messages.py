"""An HTTP request, and the response to it."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prefect_stagegate.transport.http.request_policy import MAX_PAGE, Allowed

Proxies = tuple[tuple[str, str], ...]
"""Scheme, `all` or `no`, and its value."""
Headers = dict[str, str]
"""Of a response: names in lower case; values of one name joined by a comma."""


@dataclass(frozen=True, slots=True)
class Client:
    """Settings of a source's requests. Requests of equal clients share connections."""

    allowed: Allowed = ()
    """Hosts that may be connected to whatever their address is; a tuple."""
    ca_file: str = ""
    """Path of a PEM file with certificate authorities that are trusted beside the system's."""
    idle: float = 30.0
    """Seconds without a byte after which a request fails."""
    proxies: Proxies = ()
    """Those of `environment_proxies`; empty: connect directly."""
    redirects: bool = True
    """Whether redirects are followed; else they are returned like other responses."""
    certificate: str = ""
    """Path of a PEM file with a certificate and its key, shown to servers that ask for one."""


class Upload(Protocol):
    """The body of a request, too long for memory. It is read in the thread that runs all requests."""

    def __len__(self) -> int:
        """Its bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `size`; empty at its end."""

    def rewind(self) -> None:
        """Begin again."""


LONGEST_RETRY_AFTER = 3600.0
"""Most seconds that `retry_after` returns. Callers that wait have lower bounds."""
DEFAULT_CLIENT = Client()
_REDIRECTS = 300


@dataclass(slots=True)
class Request:
    """One request, with what its response must be: the exact range, the object's size, and what `verify` checks.

    Not frozen, which would make it four times as slow to create, and each object has one.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent to the URL's origin; a redirect to another origin keeps only those of `FORWARDED_HEADERS`."""
    client: Client = DEFAULT_CLIENT
    method: str = "GET"
    body: bytes | None = None
    upload: Upload | None = None
    """A body that is read as it is sent, in place of `body`. Redirects of such a request are not followed."""
    range: tuple[int, int] | None = None
    """First byte and the byte after the last one; None for all. The response must be 206 with this Content-Range."""
    size: int | None = None
    """Size of the whole object in bytes, where known: the response's length or range must match it."""
    limit: int = MAX_PAGE
    """Longest body in bytes, where `size` is not known."""
    timeout: float | None = None
    """Seconds for the whole request; None: no limit while bytes come."""
    verify: Callable[[Response], None] | None = None
    """Raises a `StagegateError` for a response below 300 that is of another object. Must not block."""

    @property
    def is_plain(self) -> bool:
        """Whether it is a GET without a body and without a limit of time, as those of all objects are."""
        return self.method == "GET" and self.body is None and self.upload is None and not self.timeout

    @property
    def length(self) -> int | None:
        """Length of a successful response's body, where known."""
        return self.range[1] - self.range[0] if self.range else self.size


class Response:
    """The last response to a request, after redirects.

    Attributes:
        status: Its status.
        url: The URL that was requested last.
        body: Empty where the body went into a buffer or sink. Of an error at most `MAX_ERROR_BODY` bytes.
        redirects: The headers of each redirect response, in order.
    """

    __slots__ = ("_head", "_headers", "body", "redirects", "status", "url")

    def __init__(
        self,
        status: int,
        headers: Headers | str,
        url: str,
        body: bytes = b"",
        redirects: tuple[Headers, ...] = (),
    ) -> None:
        self.status, self.url, self.body, self.redirects = status, url, body, redirects
        self._head = headers if isinstance(headers, str) else ""
        self._headers = None if isinstance(headers, str) else headers

    @property
    def headers(self) -> Headers:
        """The headers, parsed when they are asked for: of most objects nobody asks."""
        if self._headers is None:
            self._headers = parse_headers(self._head)
        return self._headers

    def has_etag(self, etag: str) -> bool:
        """Whether the response names this strong etag, by a look that may miss it where servers write it oddly."""
        if self._head.lower().count("\netag:") != 1:
            return False
        rest = f'tag: "{etag}"\n'
        return f"\nE{rest}" in self._head or f"\ne{rest}" in self._head or f'\nETag: "{etag}"\n' in self._head

    @property
    def is_success(self) -> bool:
        """Whether its status is below 300."""
        return self.status < _REDIRECTS


def parse_headers(head: str) -> Headers:
    r"""The headers in the lines of a response's head, but its first.

    >>> parse_headers("HTTP/1.1 200 OK\nA: 1\na:2\n"), parse_headers("HTTP/1.1 200 OK\nA: 1\x0bB: 2")
    ({'a': '1, 2'}, {'a': '1\x0bB: 2'})
    """
    headers: Headers = {}
    # Not `splitlines`, which takes further bytes for an end, so that a value could hold a header.
    for line in head.removesuffix("\n").split("\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3); 0.0 without a usable one.

    >>> retry_after({"retry-after": "120"}), retry_after({"retry-after": "soon"}), retry_after({})
    (120.0, 0.0, 0.0)
    """
    text = headers.get("retry-after", "").strip()
    # Nine digits are far beyond the bound below.
    is_number = text.isascii() and text.isdigit()
    seconds = float(text[:9]) if is_number else (http_time(text) or 0.0) - time.time()
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def http_time(text: str | None) -> float | None:
    """The time in an HTTP header in seconds since the epoch; None when the text is none.

    >>> http_time("Thu, 01 Jan 1970 00:01:00 GMT"), http_time(""), http_time(f"Thu, 01 Jan {9**30} 00:01:00 GMT")
    (60.0, None, None)
    """
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None
