"""One object of a web server: what its headers say of it, and its bytes, compared with what was listed."""

from __future__ import annotations

import email.utils
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefect_stagegate.errors import (
    AccessDenied,
    CredentialsExpired,
    ObjectChanged,
    ObjectVanished,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    StagegateError,
)
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.objects import refused, retry_after
from prefect_stagegate.sources.hosts import ForbiddenAddress
from prefect_stagegate.sources.webclient import BUSY, WebClient
from prefect_stagegate.sources.webconnect import origin_of
from prefect_stagegate.sources.webwire import Answer, Headers

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK = 1 << 18
ENCODED = (".br", ".gz", ".tgz", ".z", ".zst")
"""Endings of files that some servers label with an encoding which they did not apply."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_DENIED, _GONE, _CHANGED = (401, 403), (404, 410), (412, 416)
_PARTIAL, _ERRORS, _FAILED = 206, 400, 500
_NO_METHOD = (405, 501)


class WebObjects:
    """The objects of one server.

    Args:
        client: Asks it.
        url: The source's, without credentials; errors name it.
        who: Who asks, for people.
    """

    trusting = "Set `verify:` to the CA's PEM file."
    """How a certificate authority is trusted."""

    def __init__(self, client: WebClient, url: str, who: str) -> None:
        self._client, self._url, self._who = client, url, who
        self.ranges = True
        """Whether the server gave parts of objects so far."""

    @contextmanager
    def ask(
        self,
        method: str,
        url: str,
        key: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        led: list[Headers] | None = None,
    ) -> Iterator[Answer]:
        """Ask as `WebClient` does, and raise what a refusal means.

        Raises:
            SourceError: One of its kinds.
        """
        try:
            with self._client.ask(method, url, headers, body, led) as answer:
                if answer.status >= _ERRORS:
                    raise self._refusal(answer, key)
                yield answer
        except SourceError as error:
            error.source = error.source or self._url
            raise
        except ForbiddenAddress as error:
            told = f"The server leads to a place where no source may be: {error}"
            raise SourceError(told, source=self._url, object=key) from error
        except ssl.SSLCertVerificationError as error:
            told = f"The certificate is not trusted: {error.verify_message}"
            raise SourceError(told, hint=self.trusting, source=self._url, object=key) from error
        except ConnectionRefusedError as error:
            raise refused(error.filename, source=self._url, key=key) from error
        except OSError as error:
            told = f"The server failed: {str(error) or type(error).__name__}"
            raise SourceUnavailable(told, source=self._url, object=key) from error

    def head(self, url: str, key: str) -> Headers:
        """An object's headers; asked by GET, and not read, where the server knows no HEAD."""
        try:
            with self.ask("HEAD", url, key) as answer:
                return answer.headers
        except _Unknown:
            with self.ask("GET", url, key) as answer:
                return answer.headers

    def ask_ahead(self, soon: Sequence[tuple[str, SourceObject]]) -> bool:
        """Ask for the whole of objects that are read soon; False when that fails, which the first read will tell.

        Args:
            soon: Where each object is, and as what it was listed; all at one server, and at least one.
        """
        try:
            self._client.connect(origin_of(soon[0][0]), len(soon))
            for url, listed in soon:
                self._client.ask_ahead("GET", url, _condition(listed))
        except (OSError, StagegateError):
            return False
        return True

    def read(self, url: str, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """The bytes from `start` to `end`, if the answer is about the object as it was listed."""
        left = end - start
        buffer = memoryview(bytearray(min(CHUNK, left)))
        with self._answer(url, listed, start, end) as answer:
            while left:
                some = buffer[: min(CHUNK, left)]
                position = 0
                while position < len(some):
                    position += self._read_into(some[position:], answer, listed.key)
                left -= len(some)
                yield some

    def fill(self, url: str, listed: SourceObject, start: int, end: int, buffer: memoryview) -> Iterator[int]:
        """The same bytes, put into `buffer` from its beginning; gives how many came each time some did."""
        position, count = 0, end - start
        with self._answer(url, listed, start, end) as answer:
            while position < count:
                came = self._read_into(buffer[position : min(position + CHUNK, count)], answer, listed.key)
                position += came
                yield came

    @contextmanager
    def _answer(self, url: str, listed: SourceObject, start: int, end: int) -> Iterator[Answer]:
        """An answer of which the part from `start` on can be read, to whoever reads exactly that."""
        headers = _condition(listed)
        if (start, end) != (0, listed.size) and self.ranges:
            headers["Range"] = f"bytes={start}-{end - 1}"
        led: list[Headers] = []
        with self.ask("GET", url, listed.key, headers=headers, led=led) as answer:
            self.ranges &= "Range" not in headers or answer.status == _PARTIAL
            begin, size = self._extent(answer, listed)
            if (size is not None and size != listed.size) or self._differs([*led, answer.headers], listed):
                raise ObjectChanged("The object changed while it was read", source=self._url, object=listed.key)
            self._skip(answer, start - begin, listed.key)
            yield answer
            if size is None and end == listed.size and answer.read(1):
                raise ObjectChanged("The object has grown", source=self._url, object=listed.key)

    def _differs(self, answers: list[Headers], listed: SourceObject) -> bool:
        """Whether the last answer speaks of another state than the listed one: not every server knows conditions.

        Args:
            answers: The headers of those that led there, and its own.
            listed: The object as it was listed.
        """
        headers = answers[-1]
        if listed.pin.kind == "etag":
            return bool(etag := headers.get("etag", "")) and web_pin(etag, None, 0) != listed.pin
        return listed.pin.kind == "mtime" and http_time(headers.get("last-modified")) not in (None, listed.modified)

    def _extent(self, answer: Answer, listed: SourceObject) -> tuple[int, int | None]:
        """Where the answer's bytes begin in the object, and the object's size, as far as it tells."""
        self._require_plain(answer, listed)
        if answer.status == _PARTIAL:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            if not found:
                raise SourceError("The server doesn't say which part it sends", source=self._url, object=listed.key)
            return int(found[1]), None if found[3] == "*" else int(found[3])
        return 0, int(length) if (length := answer.headers.get("content-length")) else None

    def _require_plain(self, answer: Answer, listed: SourceObject) -> None:
        """Refuse what was encoded on its way: nobody here decodes it."""
        encoding = answer.headers.get("content-encoding", "identity").lower()
        if encoding != "identity" and not listed.key.lower().endswith(ENCODED):
            raise SourceError(
                f"The server encodes what it sends ({encoding}), though it was asked not to",
                hint="Switch compression off for these files at the server.",
                source=self._url,
                object=listed.key,
            )

    def _skip(self, answer: Answer, count: int, key: str) -> None:
        """Pass over what stands before the part that is wanted, where the server sends the whole."""
        if count < 0:
            raise SourceError("The server sends another part than was asked for", source=self._url, object=key)
        scratch = memoryview(bytearray(min(CHUNK, count)))
        while count:
            count -= self._read_into(scratch[:count], answer, key)

    def _read_into(self, buffer: memoryview, answer: Answer, key: str) -> int:
        came = answer.readinto(buffer)
        if not came:
            raise SourceUnavailable("The connection broke in mid-body", source=self._url, object=key)
        return came

    def _refusal(self, answer: Answer, key: str) -> SourceError:
        where = {"source": self._url, "object": key}
        if answer.status in _GONE:
            return ObjectVanished("The object is gone", **where)
        if answer.status in _CHANGED:
            return ObjectChanged("The object changed while it was read", **where)
        if answer.status in _DENIED:
            return self._denial(answer, where)
        if answer.status in BUSY:
            busy = SourceBusy("The server is too busy", **where)
            busy.retry_after = retry_after(answer.headers)
            return busy
        failed = SourceUnavailable if answer.status >= _FAILED else SourceError
        kind = _Unknown if answer.status in _NO_METHOD else failed
        return kind(f"The server answers {answer.status} {answer.reason}", **where)

    def _denial(self, answer: Answer, where: dict[str, str]) -> AccessDenied:
        if "expired" in answer.headers.get("www-authenticate", ""):
            return CredentialsExpired("The credentials have expired", hint="Log in again.", **where)
        hint = f"Who asked: {self._who}. Give `username` and `password`, `token` or `headers` by `credentials:`."
        return AccessDenied("Access is denied", hint=hint, **where)


class _Unknown(SourceError):
    """The server knows no such method."""


def web_pin(etag: str, modified: float | None, size: int) -> Pin:
    """What pins an object: weak, since many servers make their etags of time and size, whatever HTTP says of them."""
    if etag:
        return Pin("etag", etag.replace('"', ""), "weak")
    return Pin("size", str(size), "weak") if modified is None else Pin("mtime", repr(modified), "weak")


def http_time(text: str | None) -> float | None:
    """A time as HTTP's headers write it, in seconds since the epoch; None when it is none.

    >>> http_time("Thu, 01 Jan 1970 00:01:00 GMT"), http_time(""), http_time(f"Thu, 01 Jan {9**30} 00:01:00 GMT")
    (60.0, None, None)
    """
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


def _condition(listed: SourceObject) -> dict[str, str]:
    if listed.pin.kind == "etag" and not listed.pin.value.startswith("W/"):  # which matches nothing (RFC 9110, 13.1.1)
        return {"If-Match": f'"{listed.pin.value}"'}
    if listed.pin.kind == "mtime" and listed.modified is not None:
        return {"If-Unmodified-Since": email.utils.formatdate(listed.modified, usegmt=True)}
    return {}
