"""One request under way: its libcurl handle, what was received so far, and how it ended."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import pycurl

from prefect_stagegate.errors import SourceUnavailable, StagegateError
from prefect_stagegate.transport.http.messages import Headers, Request, Response, Upload
from prefect_stagegate.transport.http.request_policy import (
    ALLOW_HINT,
    MAX_ERROR_BODY,
    REDIRECT_STATUSES,
    ForbiddenAddress,
    UrlOrigin,
    header_lines,
    origin_of,
    redirect_headers,
    redirect_url,
    refusal,
    wire_url,
)
from prefect_stagegate.transport.http.response_check import (
    TOO_LONG,
    failure_of,
    head_of,
    require_expected,
    status_of,
)

USER_AGENT = "prefect-stagegate"
_OK, _ERRORS = 200, 400

Sink = Callable[[memoryview], object]
"""Called with the body's next bytes, which are valid during the call."""


class RateLimiter(Protocol):
    """Limits how fast bytes are received. All reads from one server share it."""

    def take(self, count: int) -> None:
        """Count received bytes."""

    def wait_seconds(self) -> float:
        """Seconds until more bytes may be received; 0.0 for now."""


class Exchange:
    """A request and its response, whose body goes into `buffer`, to `sink`, or into the response.

    `buffer` must have the body's length; `sink` is called with its chunks. `done` is called at the end with this
    exchange, in the loop's thread; `owner` is any value, for `done`.
    """

    __slots__ = (
        "blocked", "buffer", "chunks", "done", "error", "fresh", "handle", "lines", "meter", "owner", "received",
        "redirects", "request", "response", "sink", "start", "target",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        done: Callable[[Exchange], object],
        *,
        buffer: memoryview | None = None,
        sink: Sink | None = None,
        meter: RateLimiter | None = None,
        owner: Any = None,
    ) -> None:
        self.request, self.done, self.buffer, self.sink, self.owner = request, done, buffer, sink, owner
        self.meter = meter
        self.target = request
        """The request that is sent now: the first one, or that of the last redirect."""
        self.start: UrlOrigin | None = None
        """The origin of the first request; None before the first redirect."""
        self.redirects: tuple[Headers, ...] = ()
        self.handle: pycurl.Curl | None = None
        self.fresh = False
        """Whether it needs a new connection, because the server had sent bytes on the kept one before any request."""
        self.response: Response | None = None
        self.error: Exception | None

    def reset(self) -> None:
        """Forget what was received, before the request is sent."""
        self.lines: list[bytes] = []
        self.chunks: list[bytes] = []
        self.received = 0
        self.error = None
        self.blocked = ""
        """The blocked address that it would have connected to."""

    def writer(self, handle: pycurl.Curl, pause: Callable[[pycurl.Curl, float], None]) -> Callable[[Any], int | None]:
        """The function that libcurl calls with each chunk of the body."""
        # The fast way: no Python function is run for each chunk.
        if self.buffer is None and self.sink is None and self.meter is None:
            return self.chunks.append
        keeps: bool | None = None

        def write(chunk: memoryview) -> int | None:
            nonlocal keeps
            # Before the chunk is taken: libcurl delivers a chunk again after a pause.
            if self.meter and (seconds := self.meter.wait_seconds()):
                pause(handle, seconds)
                return int(pycurl.WRITEFUNC_PAUSE)
            if keeps is None:
                status = status_of(self.lines)  # libcurl's own is not to be had during a callback
                if self.target.range and status == _OK:
                    return 0  # ends the request: the server sends the whole object instead of a range
                keeps = self._keeps_body(status)
            if self.meter:
                self.meter.take(len(chunk))
            return self._take(chunk, keep=keeps)

        return write

    def _keeps_body(self, status: int) -> bool:
        """Whether the body is kept in the response, as that of an error or redirect always is."""
        return (self.buffer is None and self.sink is None) or status >= _ERRORS or status in REDIRECT_STATUSES

    def _take(self, chunk: memoryview, *, keep: bool) -> int | None:
        """Store a chunk of the body. Returns 0, which ends the request, when the body is longer than it may be."""
        end = self.received + len(chunk)
        if keep:
            self.chunks.append(bytes(chunk))
        # A server that sends more than it announced must fill neither the buffer nor the disk.
        elif self.target.length is not None and end > self.target.length:
            return 0
        elif self.buffer is not None:
            self.buffer[self.received : end] = chunk
        elif self.sink is not None:
            try:
                self.sink(chunk)
            except Exception as error:  # noqa: BLE001 - pycurl would print it
                self.error = error
                return 0
        self.received = end
        return None

    def configure(self, handle: pycurl.Curl, pause: Callable[[pycurl.Curl, float], None]) -> None:
        """Set the handle's options for this request.

        Raises:
            StagegateError: A header or the URL can't be sent.
            pycurl.error: libcurl refuses an option.
        """
        request, self.handle = self.target, handle
        headers = header_lines(request.headers)
        if request.range:
            headers.append(f"Range: bytes={request.range[0]}-{request.range[1] - 1}")
        handle.setopt(pycurl.URL, wire_url(request.url))
        if headers:
            handle.setopt(pycurl.HTTPHEADER, headers)
        else:
            handle.unsetopt(pycurl.HTTPHEADER)  # an empty list would keep the last request's headers
        # The limit holds for errors, too, whose body may be longer than the expected one.
        length = request.length
        handle.setopt(pycurl.MAXFILESIZE_LARGE, max(request.limit if length is None else length, MAX_ERROR_BODY))
        if not request.is_plain:
            self._configure_more(handle)
        handle.setopt(pycurl.HEADERFUNCTION, self.lines.append)
        # Chunks that are kept must be copies; others are views, which saves the copy.
        writer = self.writer(handle, pause)
        handle.setopt(pycurl.WRITEFUNCTION, writer, use_memoryview=self.buffer is not None or self.sink is not None)

    def _configure_more(self, handle: pycurl.Curl) -> None:
        """Set the options of a request that is more than a GET without a time limit."""
        request = self.target
        if request.method == "HEAD":
            handle.setopt(pycurl.NOBODY, 1)
            # libcurl would compare the Content-Length of a HEAD response, which is the object's.
            handle.setopt(pycurl.MAXFILESIZE_LARGE, 0)
        elif request.upload is not None:
            request.upload.rewind()
            handle.setopt(pycurl.UPLOAD, 1)
            handle.setopt(pycurl.CUSTOMREQUEST, request.method)
            handle.setopt(pycurl.INFILESIZE_LARGE, len(request.upload))
            handle.setopt(pycurl.READFUNCTION, partial(self._read_upload, request.upload))
        elif request.method != "GET" or request.body is not None:
            handle.setopt(pycurl.CUSTOMREQUEST, request.method)
            handle.setopt(pycurl.POSTFIELDS, request.body or b"")
        if request.timeout:
            handle.setopt(pycurl.TIMEOUT_MS, int(request.timeout * 1000))

    def _read_upload(self, upload: Upload, size: int) -> bytes | int:
        try:
            return upload.read(size)
        except Exception as error:  # noqa: BLE001 - pycurl would print it
            self.error = error
            return int(pycurl.READFUNC_ABORT)

    def complete(self, handle: pycurl.Curl, code: int) -> bool:
        """Set `response`, or `error` when the request failed or the response is not as expected.

        `code` is libcurl's, 0 for a whole response.

        Returns:
            Whether the connection may be used for another request.
        """
        try:
            return self._set_response(handle, code)
        except Exception as error:  # noqa: BLE001 - raised where the response is waited for
            self.error = error
            return False

    def _set_response(self, handle: pycurl.Curl, code: int) -> bool:
        status = handle.getinfo(pycurl.RESPONSE_CODE)
        body = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        # The fast way of `writer` counts nothing while the bytes come.
        self.received = self.received or len(body)
        # The body of an error or redirect may be cut: its beginning is enough.
        is_cut = (status >= _ERRORS or status in REDIRECT_STATUSES) and code in TOO_LONG
        if code and not is_cut:
            raise self.error or self._failure(code, status, handle)
        if not (head := head_of(self.lines)):
            raise failure_of(self.target, pycurl.E_GOT_NOTHING, 0, refused=False)
        response = Response(status, head, self.target.url, body, self.redirects)
        if response.is_success:
            require_expected(self.target, response, self.received)
        elif status >= _ERRORS:
            response.body = body[:MAX_ERROR_BODY]
        self.response = response
        return not is_cut

    def _failure(self, code: int, status: int, handle: pycurl.Curl) -> StagegateError:
        if self.blocked:
            via = f" (redirect from {origin_of(self.request.url).address})" if self.redirects else ""
            return ForbiddenAddress(refusal(self.blocked, self.blocked) + via, hint=ALLOW_HINT)
        if (tunnel := handle.getinfo(pycurl.HTTP_CONNECTCODE)) >= _ERRORS:
            message = f"The proxy answers {tunnel} to a request for {origin_of(self.target.url).address}"
            return SourceUnavailable(message, hint="Check HTTPS_PROXY and its user and password.")
        # The error number alone is not enough: one address of the host may have refused, and the next one connected.
        refused = code == pycurl.E_COULDNT_CONNECT and handle.getinfo(pycurl.OS_ERRNO) == errno.ECONNREFUSED
        return failure_of(self.target, code, status, refused=refused)

    def is_redirected(self) -> bool:
        """Whether the response is a redirect to follow."""
        response = self.response
        return (
            response is not None
            and response.status in REDIRECT_STATUSES
            and "location" in response.headers
            and self.request.client.redirects
            and self.request.upload is None
        )

    def follow(self) -> bool:
        """Set `target` to the redirect's URL; False, with `error` set, where the policy forbids it."""
        assert self.response is not None  # noqa: S101 - `is_redirected`
        try:
            target = redirect_url(self.target.url, self.response.headers["location"], len(self.redirects))
            self.start = self.start or origin_of(self.request.url)
            # From the first request's headers: a redirect back to its origin gets the credentials again.
            headers = redirect_headers(self.request.headers, self.start, origin_of(target))
        except StagegateError as error:
            self.error = error
            return False
        self.redirects = (*self.redirects, self.response.headers)
        self.target, self.response = replace(self.request, url=target, headers=headers), None
        return True
