"""Compares a response with its request, and makes the error where it is not the expected one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pycurl

from prefect_stagegate.errors import ObjectChanged, SourceError, SourceUnavailable, StagegateError
from prefect_stagegate.transport.http.messages import Request, Response
from prefect_stagegate.transport.http.request_policy import origin_of
from prefect_stagegate.units import count_text

TOO_LONG = (pycurl.E_FILESIZE_EXCEEDED, pycurl.E_WRITE_ERROR)
"""libcurl's codes for a body that is longer than it may be."""
# At most 19 digits: no object is larger, and `int` would take long for very many.
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_OK, _PARTIAL = 200, 206
_LATER = "Requests are retried a few times; if all fail, try later or with fewer parallel transfers."
_TLS = "Use http:// if the server has no TLS."
_FAILURES = {
    pycurl.E_COULDNT_RESOLVE_HOST: ("Could not resolve the name of {}", "Check its spelling and the DNS."),
    pycurl.E_COULDNT_RESOLVE_PROXY: ("Could not resolve the name of the proxy for {}", "Check HTTPS_PROXY."),
    pycurl.E_OPERATION_TIMEDOUT: ("{} stopped answering", _LATER),
    pycurl.E_PARTIAL_FILE: ("The connection to {} broke before the end of the response", _LATER),
    pycurl.E_GOT_NOTHING: ("{} closed the connection without a response", _LATER),
    pycurl.E_RECV_ERROR: ("{} closed the connection without a response", _LATER),
    pycurl.E_SSL_CONNECT_ERROR: ("The TLS handshake with {} failed", _TLS),
}
"""By libcurl's code: what happened at the server's address, and what to do."""


class RangeIgnored(SourceError):
    """The server sends the whole object when a range of it is requested."""


class ResponseTooLong(SourceError):
    """The response is longer than its request permits."""


class CertificateNotTrusted(SourceError):
    """The server's certificate is not trusted."""


def head_of(lines: Iterable[bytes]) -> str:
    r"""The head of the last response, without those of a proxy's tunnel and of interim responses, and trailers.

    Empty where no empty line ends it: libcurl accepts a response that was cut in its head.

    >>> head_of([b"HTTP/1.1 100\r\n", b"\r\n", b"HTTP/1.1 200 OK\n", b"A: 1\r\n", b"a:2\n", b"\n", b"b: 3\n"])
    'HTTP/1.1 200 OK\nA: 1\na:2\n'
    >>> head_of([b"HTTP/1.1 100\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\n", b"A: 1\r\n"])
    ''
    """
    text = b"".join(lines).decode("iso-8859-1").replace("\r\n", "\n")
    head, ended, _ = text[text.rfind("\nHTTP/") + 1 :].partition("\n\n")
    return head + "\n" if ended else ""


def status_of(lines: Sequence[bytes]) -> int:
    """The status of the last response in these lines; 0 where there is none.

    >>> status_of([b"HTTP/1.1 100 Continue", b"", b"HTTP/2 206", b"ETag: a"])
    206
    """
    for line in reversed(lines):
        if line.startswith(b"HTTP/"):
            status = line.partition(b" ")[2][:3]
            return int(status) if status.isdigit() else 0
    return 0


def require_expected(request: Request, response: Response, received: int) -> None:
    """Compare a response below 300 with its request.

    `request` is the one after redirects; `received` is the length of the body in bytes.

    Raises:
        RangeIgnored: The response is the whole object, and a range was requested.
        ObjectChanged: The object's size is another one.
        SourceUnavailable: The response is another range, or too short.
        SourceError: The response has no Content-Range, or is no object.
        StagegateError: What the request's `verify` raised.
    """
    length = request.length
    if request.range:
        _require_range(request, request.range, response)
    elif length is not None and response.status != _OK and request.method != "HEAD":
        raise SourceError(f"The server answers {response.status} and sends no object")
    if length is None:
        if received > request.limit:
            raise _too_long(request, response.status, origin_of(request.url).address)
    elif received != length and request.method != "HEAD":
        # A whole response that announced its length is of another object; one that did not may have broken off.
        if not request.range and (received > length or "content-length" in response.headers):
            raise _changed()
        message = f"The server sent {count_text(received, 'byte')} instead of the expected {length:,}"
        raise SourceUnavailable(message, hint=_LATER)
    if request.verify:
        request.verify(response)


def failure_of(request: Request, code: int, status: int, *, refused: bool) -> StagegateError:
    """The error for a request that ended without a whole response.

    `code` is libcurl's; `status` is 0 without a response.
    """
    address = origin_of(request.url).address
    if code in TOO_LONG:
        return _too_long(request, status, address)
    if code == pycurl.E_PEER_FAILED_VERIFICATION:
        hint = "Set `verify:` to the CA's PEM file."
        return CertificateNotTrusted(f"The certificate of {address} is not trusted", hint=hint)
    if refused:
        return connection_refused(address)
    if code == pycurl.E_RECV_ERROR and status:
        # The response had begun, since it has a status.
        code = pycurl.E_PARTIAL_FILE
    message, hint = _FAILURES.get(code, (f"The connection to {{}} failed ({pycurl.easy_strerror(code)})", _LATER))
    return SourceUnavailable(message.format(address), hint=hint)


def connection_refused(address: str, *, source: str = "", key: str = "") -> SourceUnavailable:
    """The error for a server that refuses connections, the same for all kinds of sources.

    `address` is its host and port.
    """
    hint = "Check the server's address and port, and that it runs."
    return SourceUnavailable(f"Connection refused by {address}", hint=hint, source=source, object=key)


def _require_range(request: Request, wanted: tuple[int, int], response: Response) -> None:
    if response.status != _PARTIAL:
        raise RangeIgnored(f"The server answers {response.status} and sends no range of the object")
    answer = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if not answer:
        raise SourceError("The server doesn't say which range it sends (Content-Range)")
    if (int(answer[1]), int(answer[2]) + 1) != wanted:
        raise SourceUnavailable("The server sent another range than the requested one", hint=_LATER)
    if request.size is not None and answer[3] not in ("*", str(request.size)):
        raise _changed()


def _too_long(request: Request, status: int, address: str) -> StagegateError:
    if request.range and status == _OK:
        return RangeIgnored("The server sends the whole object when a range of it is requested")
    if request.size is not None and not request.range:
        return _changed()
    if request.range:
        message = f"{address} sent more than the requested {count_text(request.length or 0, 'byte')}"
        return SourceUnavailable(message, hint=_LATER)
    return ResponseTooLong(f"{address} sent more than the permitted {count_text(request.limit, 'byte')}")


def _changed() -> ObjectChanged:
    return ObjectChanged("The object changed while it was read", hint="Stage again to read its new content.")
