"""Changing bytes at random: any bytes, numbers in a text, and an HTTP answer as its protocol frames it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

LONGEST = 4096
"""Bytes of a slice that is repeated or taken out."""
NUMBERS = (
    b"0", b"-1", b"1", b"00", b"+5", b"1e9", b"NaN", b"Infinity", b"0x10", b"2147483648", b"4294967296", b"9" * 30,
    b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"", b"1.5", "٣".encode(), "²".encode(),
)  # fmt: skip
"""What stands for a number where a program may read another."""
WORDS = (
    b"", b"null", b"true", b"[]", b"{}", b"..", b"../../etc/passwd", b"/", b"//", b".", b"\x00", b"\xff\xfe", b"%00",
    b"%2e%2e%2f", b"%", b"a" * 5000, b"\r\n\r\n", b"\xed\xa0\x80", "\u202e".encode(), b"\n", b"CON", b"<!--", b"]]>",
)  # fmt: skip
"""What stands for a name or a value."""

Change = Callable[[random.Random, bytes], bytes]


def mutate(draw: random.Random, data: bytes) -> bytes:
    """The data with one to three changes."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice(CHANGES)(draw, data)
    return data


def _flip(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _slice(draw: random.Random, data: bytes) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 4, 64, LONGEST)))


def _repeat(draw: random.Random, data: bytes) -> bytes:
    start, end = _slice(draw, data)
    return data[:end] + data[start:end] * draw.choice((1, 1, 3, 50)) + data[end:]


def _take_out(draw: random.Random, data: bytes) -> bytes:
    start, end = _slice(draw, data)
    return data[:start] + data[end:]


def _overwrite(draw: random.Random, data: bytes) -> bytes:
    start, end = _slice(draw, data)
    filling = draw.choice((b"\x00", b"\xff", b"\x80", b"9", b" "))
    return data[:start] + filling * (end - start) + data[end:]


def _number(draw: random.Random, data: bytes) -> bytes:
    return _replace(draw, data, rb"[0-9]+", NUMBERS)


def _word(draw: random.Random, data: bytes) -> bytes:
    return _replace(draw, data, rb"(?<=[\">=/])[^\"<>&/\r\n]{1,80}(?=[\"<&/])", WORDS)


def _replace(draw: random.Random, data: bytes, pattern: bytes, choices: Sequence[bytes]) -> bytes:
    places = [match.span() for match in re.finditer(pattern, data)]
    if not places:
        return _flip(draw, data)
    start, end = draw.choice(places)
    return data[:start] + draw.choice(choices) + data[end:]


CHANGES: tuple[Change, ...] = (_flip, _flip, _cut, _repeat, _take_out, _overwrite, _number, _number, _word, _word)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer of a web server, as it was recorded: its body is whole."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    """Empty for an answer to HEAD, whatever its headers say."""

    def header(self, name: str) -> str:
        """A header's value, empty when there is none."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def without(self, name: str) -> tuple[tuple[str, str], ...]:
        """All headers but one."""
        return tuple(pair for pair in self.headers if pair[0].lower() != name)

    def written(self) -> bytes:
        """The answer as it is sent."""
        lines = [f"HTTP/1.1 {self.status} {self.reason}", *(f"{key}: {value}" for key, value in self.headers)]
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + self.body


@dataclass(frozen=True, slots=True)
class Sending:
    """What is sent in place of an answer, and how."""

    data: bytes
    closes: bool = False
    """End the connection after it, without a word."""
    resets: bool = False
    stalls: bool = False
    """Send nothing more, and keep the connection open."""
    pieces: int = 1
    """How many it is sent in, with a pause before each."""


def mutate_http(draw: random.Random, answer: HttpAnswer, others: Sequence[HttpAnswer]) -> Sending:
    """An answer changed in one of the ways in which servers, proxies and attackers do it.

    Args:
        draw: Decides.
        answer: What the server answered.
        others: Other answers of the same server.
    """
    return draw.choice(HTTP_CHANGES)(draw, answer, others)


HttpChange = Callable[[random.Random, HttpAnswer, Sequence[HttpAnswer]], Sending]


def _any_bytes(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    return Sending(mutate(draw, answer.written()), closes=draw.random() < 0.5)


def _body(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    """Change the body, and tell its length rightly: what is wrong is what it says."""
    body = mutate(draw, answer.body)
    headers = (*answer.without("content-length"), ("Content-Length", str(len(body))))
    return Sending(replace(answer, body=body, headers=headers).written())


def _cut_off(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    data = answer.written()
    end = draw.choice((draw.randrange(len(data) + 1), len(data) - len(answer.body), max(0, len(data) - 1)))
    resets = draw.random() < 0.3
    return Sending(data[:end], closes=not resets, resets=resets)


def _stalled(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    data = answer.written()
    return Sending(data[: draw.randrange(len(data) + 1)], stalls=True)


def _trickled(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    return Sending(answer.written(), pieces=draw.randrange(2, 8))


def _length(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    size = len(answer.body)
    wrong = draw.choice(
        (str(size + 1), str(max(0, size - 1)), "0", f"{size}, {size}", f"{size} ", draw.choice(NUMBERS))
    )
    text = wrong.decode("utf-8", "surrogateescape") if isinstance(wrong, bytes) else wrong
    kept = answer.headers if draw.random() < 0.3 else answer.without("content-length")
    headers = (*kept, ("Content-Length", text))
    return Sending(replace(answer, headers=headers).written(), closes=draw.random() < 0.5)


def _range(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    strange = draw.random() < 0.5

    def number() -> str:
        text = draw.choice(NUMBERS) if strange else str(draw.randrange(len(answer.body) + 2)).encode()
        return text.decode("utf-8", "surrogateescape")

    headers = (*answer.without("content-range"), ("Content-Range", f"bytes {number()}-{number()}/{number()}"))
    return Sending(replace(answer, status=draw.choice((200, 206, 416)), headers=headers).written())


def _status(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    codes = (
        100,
        101,
        200,
        201,
        204,
        206,
        207,
        300,
        301,
        304,
        307,
        400,
        401,
        403,
        404,
        409,
        412,
        416,
        429,
        500,
        503,
        999,
    )
    return Sending(replace(answer, status=draw.choice(codes)).written(), closes=draw.random() < 0.3)


def _header(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    """Take a header out, repeat it, change it, or add a strange one."""
    headers = list(answer.headers)
    at = draw.randrange(len(headers)) if headers else 0
    way = draw.randrange(7)
    if headers and way == 0:
        del headers[at]
    elif headers and way == 1:
        headers.insert(draw.randrange(len(headers) + 1), headers[at])
    elif headers and way in (2, 3):
        value = mutate(draw, headers[at][1].encode("utf-8", "surrogateescape"))
        headers[at] = (headers[at][0], value.decode("utf-8", "surrogateescape"))
    elif way == 4:
        headers.insert(at, ("X-Long", "x" * draw.choice((9_000, 70_000, 1_100_000))))
    elif way == 5:
        headers[at:at] = [(f"X-Many-{number}", "1") for number in range(draw.choice((90, 300, 5000)))]
    else:
        draw.shuffle(headers)
    return Sending(replace(answer, headers=tuple(headers)).written(), closes=draw.random() < 0.2)


def _strange_header(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    strange = (
        ("Content-Encoding", "gzip"), ("Content-Encoding", "br"), ("Transfer-Encoding", "gzip, chunked"),
        ("Transfer-Encoding", "chunked"), ("Connection", "close"), ("Connection", "upgrade"), ("Retry-After", "9" * 20),
        ("Retry-After", "-1"), ("Retry-After", "soon"), ("Last-Modified", "yesterday"), ("Location", "/" * 100),
        ("Last-Modified", "Mon, 01 Jan 99999 00:00:00 GMT"), ("ETag", '"\u00e9'), ("ETag", ""), ("X\x00", "\x00"),
        ("", ""), (" folded", "x"), ("Content-Type", "text/html; charset=utf-7"), ("Link", "<x>; rel=next"),
        ("x-goog-hash", "crc32c=AAAA"), ("x-goog-hash", "md5=" + "é" * 5), ("x-goog-generation", "-1"),
    )  # fmt: skip
    headers = list(answer.headers)
    headers.insert(draw.randrange(len(headers) + 1), draw.choice(strange))
    return Sending(replace(answer, headers=tuple(headers)).written(), closes=draw.random() < 0.2)


def _chunked(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    """Frame the body in chunks, rightly or not."""
    pieces, at = [], 0
    while at < len(answer.body):
        size = draw.randrange(1, 5000)
        pieces.append(answer.body[at : at + size])
        at += size
    wrong = draw.randrange(-3, max(1, len(pieces)))
    written = b""
    for number, piece in enumerate(pieces):
        announced = b"%x" % len(piece)
        if number == wrong:
            announced = draw.choice(
                (b"%x" % (len(piece) + 1), b"%x" % (len(piece) // 2), b"f" * 16, b"-1", b"", b"zz", b"0")
            )
        written += announced + draw.choice((b"", b"", b";name=value", b";" + b"x" * 20_000)) + b"\r\n" + piece + b"\r\n"
    written += draw.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n", b"", b"0\r\n", b"0\n\n"))
    headers = (*answer.without("content-length"), ("Transfer-Encoding", "chunked"))
    kept = (*answer.headers, ("Transfer-Encoding", "chunked")) if draw.random() < 0.1 else headers
    return Sending(replace(answer, body=written, headers=kept).written(), closes=draw.random() < 0.4)


def _more(draw: random.Random, answer: HttpAnswer, others: Sequence[HttpAnswer]) -> Sending:
    """Send another answer, or anything, behind the answer, or an interim one before it."""
    stranger = draw.choice(list(others) or [answer]).written()
    if draw.random() < 0.3:
        return Sending(b"HTTP/1.1 100 Continue\r\n\r\n" * draw.choice((1, 3, 200)) + answer.written())
    return Sending(answer.written() + draw.choice((stranger, stranger, b"\r\n", b"\x00" * 100, b"HTTP/1.1 ")))


def _swapped(draw: random.Random, answer: HttpAnswer, others: Sequence[HttpAnswer]) -> Sending:
    """Send another answer in its place, all of it or its body only."""
    other = draw.choice(list(others) or [answer])
    return Sending(other.written() if draw.random() < 0.5 else replace(answer, body=other.body).written())


def _endings(draw: random.Random, answer: HttpAnswer, _: Sequence[HttpAnswer]) -> Sending:
    """Write the head with other line ends, another protocol, or none."""
    data = answer.written()
    head, body = data[: len(data) - len(answer.body)], answer.body
    changes = (
        head.replace(b"\r\n", b"\n"), head.replace(b"\r\n", b"\r"), head.replace(b"HTTP/1.1", b"HTTP/1.0"),
        head.replace(b"HTTP/1.1", b"HTTP/2.0"), head.replace(b"HTTP/1.1", b"ICY"), b"", head.replace(b": ", b" : "),
        head.replace(b"\r\n", b"\r\n ", 2), b"\r\n" * 3 + head, head.lower(),
    )  # fmt: skip
    return Sending(draw.choice(changes) + body, closes=draw.random() < 0.6)


HTTP_CHANGES: tuple[HttpChange, ...] = (
    *(_any_bytes,) * 4, *(_body,) * 6, *(_cut_off,) * 2, _trickled, *(_length,) * 3, *(_range,) * 2, *(_status,) * 2,
    *(_header,) * 3, *(_strange_header,) * 3, *(_chunked,) * 4, *(_more,) * 2, *(_swapped,) * 2, _endings, _stalled,
)  # fmt: skip
