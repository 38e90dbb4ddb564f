"""Responses as servers send them, well and badly: each is taken as it is or refused by a typed error."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from prefect_stagegate.errors import ObjectChanged, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.transport.http import Client, RangeIgnored, Request, fetch
from tests.support.rawserver import RawServer, raw_server, response

IMPATIENT = Client(idle=1.0)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def once(said: bytes) -> Iterator[RawServer]:
    """A server that says this and hangs up."""

    def script(_head: bytes, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    with raw_server(script) as server:
        yield server


def got(said: bytes, **request: object) -> bytes:
    for server in once(said):
        return bytes(fetch(Request(f"{server.url}/a", client=IMPATIENT, timeout=10, **request)).body)  # type: ignore[arg-type]
    raise AssertionError


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_body_comes_however_it_is_cut(size: int) -> None:
    body = bytes(range(256)) * 20
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (body[:1], body[1:3000], body[3000:]))
    framed = (
        response(body),
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(body),
        CHUNKED + chunks + b"0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    )
    for said in framed:

        def script(_head: bytes, connection: socket.socket, said: bytes = said) -> None:
            for at in range(0, len(said), size):
                connection.sendall(said[at : at + size])

        with raw_server(script) as server:
            assert bytes(fetch(Request(f"{server.url}/a", client=IMPATIENT)).body) == body


def test_headers_of_one_name_are_joined_and_trailers_left_out() -> None:
    said = CHUNKED.replace(b"\r\n\r\n", b"\r\nA: 1\r\nB: 2\r\na: 3\r\nTrailer: ETag\r\n\r\n")
    said += b"5\r\nhello\r\n0\r\nETag: evil\r\n\r\n"
    for server in once(said):
        came = fetch(Request(f"{server.url}/a"))
        assert (came.headers["a"], came.headers["b"], bytes(came.body)) == ("1, 3", "2", b"hello")
        assert "etag" not in came.headers


BROKEN = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/0.9": b"hello",
    "a trailer instead of a head's end": OK + b"Transfer-Encoding: chunked\r\n",
    "a refusal whose head ends early": b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n",
    "a head that ends early": OK + b"Content-Length: 5\r\n",
    "a negative length": OK + b"Content-Length: -1\r\n\r\nhello",
    "a length that is no number": OK + b"Content-Length: five\r\n\r\nhello",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a NUL in a header": OK + b"A: \x00\r\nContent-Length: 5\r\n\r\nhello",
    "a header of 200 kB": OK + b"A: " + b"x" * 200_000 + b"\r\nContent-Length: 5\r\n\r\nhello",
    "headers of 400 kB": OK + (b"A: " + b"x" * 50_000 + b"\r\n") * 8 + b"Content-Length: 5\r\n\r\nhello",
    "6,000 headers": OK + b"A: b\r\n" * 6000 + b"Content-Length: 5\r\n\r\nhello",
    "interim responses without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
    "a body that ends early": OK + b"Content-Length: 9\r\n\r\nhello",
    "chunks that end early": CHUNKED + b"9\r\nhello",
    "chunks without a last one": CHUNKED + b"5\r\nhello\r\n",
    "a negative chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer than told": CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
    "a chunk's size of many digits": CHUNKED + b"1" * 100_000,
    "a chunk's size that overflows": CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "an encoding and chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "another transfer encoding": OK + b"Transfer-Encoding: cow\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("said", [pytest.param(said, id=name) for name, said in BROKEN.items()])
@pytest.mark.parametrize("size", [5, None], ids=["of a known size", "of any size"])
def test_broken_response_is_refused(said: bytes, size: int | None) -> None:
    begun = time.monotonic()
    with pytest.raises(SourceError):
        got(said, size=size)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "said",
    [
        OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
        OK + b"\r\nhell",
        OK + b"\r\nhello!",
        CHUNKED + b"4\r\nhell\r\n0\r\n\r\n",
        CHUNKED + b"6\r\nhello!\r\n0\r\n\r\n",
        response(b"hell"),
        response(b"hello!"),
    ],
)
def test_body_of_another_size_is_refused(said: bytes) -> None:
    with pytest.raises((ObjectChanged, SourceUnavailable)):
        got(said, size=5)


@pytest.mark.parametrize(
    "body", [response(b"x" * 1001), OK + b"\r\n" + b"x" * 1_000_000, CHUNKED + b"FFFFF\r\n" + b"x" * 0xFFFFF]
)
def test_page_above_its_limit_is_refused(body: bytes) -> None:
    with pytest.raises(SourceError, match="1,000 bytes"):
        got(body, limit=1000)


def test_compressed_body_is_kept_as_it_was_sent() -> None:
    packed = gzip.compress(b"a" * 1000)
    for server in once(response(packed, headers={"Content-Encoding": "gzip"})):
        came = fetch(Request(f"{server.url}/a"))
        assert (bytes(came.body), came.headers["content-encoding"]) == (packed, "gzip")
        assert b"Accept-Encoding: identity" in server.requests[0]


@pytest.mark.parametrize("name", [b"X", b"Link", b"WWW-Authenticate", b"Retry-After", b"ETag", b"Content-Range"])
def test_blanks_in_a_header_cost_no_time(name: bytes) -> None:
    """One header of 60,000 blanks held the interpreter for a minute."""
    said = OK + name + b": " + b" " * 60_000 + b"x" + b" " * 30_000 + b"\r\nContent-Length: 5\r\n\r\nhello"
    begun = time.process_time()
    assert got(said) == b"hello"
    assert time.process_time() - begun < 1


RANGES = {
    "another range": ("206 x", "bytes 1-3/10", SourceUnavailable),
    "no range": ("206 x", None, SourceError),
    "a range of another size": ("206 x", "bytes 0-2/11", ObjectChanged),
    "a range that is junk": ("206 x", "bytes 0-2/10 and more", SourceError),
    "the whole": ("200 OK", None, RangeIgnored),
}


@pytest.mark.parametrize(("status", "content_range", "error"), RANGES.values(), ids=RANGES)
def test_response_of_another_range_is_refused(status: str, content_range: str | None, error: type[Exception]) -> None:
    said = response(b"abc", status, {"Content-Range": content_range} if content_range else {})
    with pytest.raises(error):
        got(said, range=(0, 3), size=10)


def test_range_is_taken_into_a_buffer() -> None:
    for server in once(response(b"abc", "206 x", {"Content-Range": "bytes 4-6/10"})):
        buffer = bytearray(3)
        fetch(Request(f"{server.url}/a", range=(4, 7), size=10), memoryview(buffer))
        assert buffer == b"abc"
        assert b"Range: bytes=4-6" in server.requests[0]


@pytest.mark.parametrize(
    "headers", [{"A": "x\r\nB: y"}, {"A": "x\ny"}, {"A": "x\0"}, {"A\r\nB": "x"}, {"A: x\r\nB": "y"}, {"A": "x\ry"}]
)
def test_header_with_a_line_break_is_not_sent(headers: dict[str, str]) -> None:
    with raw_server(response()) as server:
        with pytest.raises(UsageError, match="control character"):
            fetch(Request(f"{server.url}/a", headers))
        assert server.requests == []


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/a\nb", "/é", "/a\0b", "/\udcff", "/a#x"])
def test_odd_url_is_one_request_line(path: str) -> None:
    with raw_server(response()) as server:
        with suppress(SourceError, UsageError):
            fetch(Request(f"{server.url}{path}"))
        for head in server.requests:
            lines = head.split(b"\r\n")
            assert lines[0].count(b" ") == 2
            assert lines[1].startswith(b"Host: ")
            assert b"X: y" not in lines
            assert head.isascii()


def test_path_is_sent_as_it_is() -> None:
    with raw_server(response()) as server:
        fetch(Request(f"{server.url}/a//../%2E/./b?c=%20d"))
        assert server.requests[0].startswith(b"GET /a//../%2E/./b?c=%20d HTTP/1.1\r\n")


def test_server_without_a_byte_is_given_up() -> None:
    def script(_head: bytes, connection: socket.socket) -> bytes:
        connection.recv(1)
        return b""

    with raw_server(script) as server:
        begun = time.monotonic()
        with pytest.raises(SourceUnavailable, match="stopped answering"):
            fetch(Request(f"{server.url}/a", client=IMPATIENT))
        assert time.monotonic() - begun < 4


@pytest.mark.parametrize("said", [OK + b"A: ", OK + b"Content-Length: 100000\r\n\r\n", CHUNKED + b"FFFFF\r\n"])
def test_dripping_server_ends_at_the_total_time(said: bytes) -> None:
    def script(_head: bytes, connection: socket.socket) -> None:
        connection.sendall(said)
        connection.settimeout(0.1)
        while True:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                if not connection.recv(1):
                    return

    with raw_server(script) as server:
        begun = time.monotonic()
        with pytest.raises(SourceUnavailable):
            fetch(Request(f"{server.url}/a", client=Client(idle=30), timeout=1.5))
        assert time.monotonic() - begun < 4


@pytest.mark.parametrize("begun", [b"", b"5\r\nhello\r\n"])
def test_chunk_extension_without_end_is_given_up(begun: bytes) -> None:
    """However fast its bytes come: only those of the body keep a request alive."""

    def endless(_head: bytes, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(CHUNKED + begun + b"5;")
            while True:
                connection.sendall(b"a" * 65536)

    started = time.monotonic()
    with raw_server(endless) as server, pytest.raises(SourceUnavailable, match="stopped answering"):
        fetch(Request(f"{server.url}/a", client=IMPATIENT))
    assert time.monotonic() - started < 5
