"""One web server: fetches pages, reads pins from headers, and translates error responses."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from functools import partial

from prefect_stagegate.errors import (
    AccessDenied,
    CredentialsExpired,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
)
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources.adapter import server_busy
from prefect_stagegate.transport.http import (
    BUSY_STATUSES,
    MAX_PAGE,
    PAGE_SECONDS,
    CertificateNotTrusted,
    Client,
    Headers,
    Request,
    Response,
    fetch,
    origin_of,
)
from prefect_stagegate.transport.http.messages import http_time

ENCODED = (".br", ".gz", ".tgz", ".z", ".zst")
"""Endings of files that some servers label with a content encoding that they did not apply."""
_DENIED, _GONE, _CHANGED = (401, 403), (404, 410), (412, 416)
_FAILED = 500
_NO_METHOD = (405, 501)


class WebServer:
    """A web server, as one user sees it.

    Only the origin of `home` gets `headers`, credentials among them. `who` is the user, for messages.
    """

    trusting = "Set `verify:` to the CA's PEM file."
    """The hint for a certificate of an unknown authority."""

    def __init__(self, client: Client, home: str, headers: Mapping[str, str], *, url: str, who: str) -> None:
        self._client, self._headers, self._url, self._who = client, dict(headers), url, who
        self._home = origin_of(home)

    def fetch(
        self,
        method: str,
        url: str,
        key: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit: int = MAX_PAGE,
    ) -> Response:
        """Send a request and return the response of a page, a listing or an API, of `limit` bytes at most.

        Raises:
            SourceError: The typed error for a response of 300 or above, or for a failed connection.
        """
        try:
            response = fetch(
                Request(url, self._sent(url, headers), self._client, method, body, limit=limit, timeout=PAGE_SECONDS)
            )
        except CertificateNotTrusted as error:
            error.hint = self.trusting
            raise self._with_subject(error, key) from error
        except SourceError as error:
            raise self._with_subject(error, key) from error.__cause__
        if not response.is_success:
            raise self.refusal(response, key)
        return response

    def head(self, url: str, key: str) -> Headers:
        """An object's headers, by HEAD, or by a GET of its first byte where the server knows no HEAD."""
        try:
            return self.fetch("HEAD", url, key).headers
        except UnknownMethod:
            return self._first_byte(url, key)

    def head_request(self, url: str) -> Request:
        """The request for an object's headers."""
        return Request(url, self._sent(url), self._client, "HEAD", timeout=PAGE_SECONDS)

    def object_request(self, url: str, listed: SourceObject, start: int, end: int) -> Request:
        """The request for a range of an object, on the condition that it is as it was listed."""
        whole = (start, end) == (0, listed.size)
        return Request(
            url,
            self._sent(url, _condition(listed)),
            self._client,
            range=None if whole else (start, end),
            size=listed.size,
            verify=partial(self.verify, listed),
        )

    def verify(self, listed: SourceObject, response: Response) -> None:
        """Compare a response with the listed object: some servers ignore the conditions of a request.

        Raises:
            ObjectChanged: The response holds another state of the object.
            SourceError: The response has a content encoding, although the request permits none.
        """
        headers = response.headers
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding != "identity" and not listed.key.lower().endswith(ENCODED):
            raise SourceError(
                f"The server compressed the response ({encoding}), which the request forbids",
                hint="Switch compression off for these files at the server.",
                source=self._url,
                object=listed.key,
            )
        if self.differs(response, listed):
            raise ObjectChanged("The object changed while it was read", source=self._url, object=listed.key)

    def differs(self, response: Response, listed: SourceObject) -> bool:
        """Whether a response's headers name another state than the listed one."""
        headers = response.headers
        if listed.pin.kind == "etag":
            return bool(etag := headers.get("etag", "")) and web_pin(etag, None, 0) != listed.pin
        return listed.pin.kind == "mtime" and http_time(headers.get("last-modified")) not in (None, listed.modified)

    def refusal(self, response: Response, key: str) -> SourceError:
        """The typed error for a response of 300 or above."""
        subject = {"source": self._url, "object": key}
        status = response.status
        if status in _GONE:
            return ObjectVanished("The object is gone", **subject)
        if status in _CHANGED:
            return ObjectChanged("The object changed while it was read", **subject)
        if status in _DENIED:
            return self._denial(response, subject)
        if status in BUSY_STATUSES:
            return server_busy(response.headers, source=self._url, key=key)
        failed = SourceUnavailable if status >= _FAILED else SourceError
        kind = UnknownMethod if status in _NO_METHOD else failed
        return kind(f"The server answers {status}", **subject)

    def _first_byte(self, url: str, key: str) -> Headers:
        headers = self.fetch("GET", url, key, headers={"Range": "bytes=0-0"}).headers
        # Content-Length is that of one byte; the object's size stands behind the slash of Content-Range.
        size = headers.get("content-range", "").rpartition("/")[2]
        return {**headers, "content-length": size} if size else headers

    def _sent(self, url: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        # Credentials go to the source's own origin only: a manifest may name objects of other hosts.
        home_headers = self._headers if origin_of(url) == self._home else {}
        return {**(headers or {}), **home_headers}

    def _with_subject(self, error: SourceError, key: str) -> SourceError:
        error.source, error.object = error.source or self._url, error.object or key
        return error

    def _denial(self, response: Response, subject: dict[str, str]) -> AccessDenied:
        if "expired" in response.headers.get("www-authenticate", ""):
            return CredentialsExpired("The credentials have expired", hint="Log in again.", **subject)
        hint = f"Tried with: {self._who}. Set `username` and `password`, `token` or `headers` by `credentials:`."
        return AccessDenied("Access is denied", hint=hint, **subject)


class UnknownMethod(SourceError):
    """The server does not support the request's method."""


def web_pin(etag: str, modified: float | None, size: int) -> Pin:
    """An object's pin. It is weak, because many servers build even strong etags from time and size."""
    if etag:
        return Pin("etag", etag.replace('"', ""), "weak")
    return Pin("size", str(size), "weak") if modified is None else Pin("mtime", repr(modified), "weak")


def _condition(listed: SourceObject) -> dict[str, str]:
    # If-Match compares strongly, so a weak etag would never match (RFC 9110, 13.1.1).
    if listed.pin.kind == "etag" and not listed.pin.value.startswith("W/"):
        return {"If-Match": f'"{listed.pin.value}"'}
    if listed.pin.kind == "mtime" and listed.modified is not None:
        return {"If-Unmodified-Since": email.utils.formatdate(listed.modified, usegmt=True)}
    return {}
