"""HTTP/1.1 on one connection (RFC 9112): questions are sent before their answers are wanted, and bytes are not copied.

Python's own client and h11 take twice to three times as long for the head of an answer, which is most of what a small
object costs, and copy the body once more. Connections are still made by Python's, TLS and proxies' tunnels included.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

HEAD = 1 << 16
"""Bytes of an answer's head that are read at most."""
_ROOM = 1 << 13
"""Bytes of the buffer that answers begin in; most heads are much shorter."""
_LINE = 1 << 12
"""Bytes of a line between chunks at most."""
_END = b"\r\n\r\n"
_STATUS = re.compile(r"HTTP/1\.([01]) (\d{3})(?: ([^\r\n]*))?(?=\r|$)")
_HEADER = re.compile(r"\r\n([^\s:]+):[ \t]*((?:[^\r\n]*[^\s])?)[ \t]*(?=\r|$)")
_TARGET = re.compile(r"[\x21-\x7e]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?")
_INFORMATIONAL = range(100, 200)
_MOST_INFORMATIONAL = 8
_WITHOUT_BODY = (204, 304)


class BadAnswer(OSError):
    """What came is not HTTP, or ended before its end."""


Headers = dict[str, str]
"""An answer's headers, by their names in lower case; those that came twice are joined by commas (RFC 9110, 5.3)."""


class Wire:
    """One connection. Each question's answer is read to its end before the next question is sent.

    Args:
        connection: Connected, with its own timeout.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray(_ROOM)
        self._begin = self._end = 0
        """What came and was not used yet stands in the buffer between them."""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def fileno(self) -> int:
        """The connection's file descriptor; -1 when it is closed."""
        return self._socket.fileno()

    @property
    def disturbed(self) -> bool:
        """Whether something came since the last answer, if only the end. Not known of TLS, whose tickets come then."""
        if isinstance(self._socket, ssl.SSLSocket):
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Have what has not come yet be an `OSError` in the block instead of waiting for it. It can be read later."""
        patience = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            yield
        finally:
            self._socket.settimeout(patience)

    def send(self, method: str, host: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> None:
        """Send a question.

        Args:
            method: HTTP's.
            host: Whom it asks, with the port unless that is the scheme's own.
            target: Path and query; a whole URL for a proxy.
            headers: Others than Host and Content-Length.
            body: What goes along.

        Raises:
            BadAnswer: It can't be sent: a control character or a space stands where none may.
            OSError: The connection broke.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {headers[name]}" for name in headers)]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        text = "\r\n".join(lines)
        if not _TARGET.fullmatch(target) or text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1:
            raise BadAnswer("the address or a header holds what HTTP can't send")
        try:
            head = text.encode("latin-1") + _END
        except UnicodeEncodeError as error:
            raise BadAnswer("a header holds letters that HTTP can't send") from error
        self._socket.sendall(head + body if body else head)

    def answer(self, method: str) -> Answer:
        """The answer's head; its body is read by the answer itself.

        Raises:
            BadAnswer: It is none.
            OSError: The connection broke.
        """
        for _ in range(_MOST_INFORMATIONAL):
            head = self._head()
            if not (found := _STATUS.match(head)):
                break
            answer = None
            if (status := int(found[2])) not in _INFORMATIONAL:
                headers = _headers(head, found.end())
                answer = Answer(self, method, status, found[3] or "", headers, newer=found[1] == "1")
            self._begin += len(head) + len(_END)
            if answer:
                return answer
        raise BadAnswer("the answer is not HTTP")

    @property
    def quiet(self) -> bool:
        """Whether nothing came that nobody asked for."""
        return self._begin == self._end

    def receive(self, view: memoryview) -> int:
        """Put some bytes into `view`; returns how many came, 0 at the connection's end."""
        if count := min(self._end - self._begin, len(view)):
            view[:count] = memoryview(self._buffer)[self._begin : self._begin + count]
            self._begin += count
            return count
        return self._socket.recv_into(view)

    def line(self) -> bytes:
        """The next line, without its end."""
        while (at := self._buffer.find(b"\r\n", self._begin, self._end)) < 0:
            if self._end - self._begin > _LINE:
                raise BadAnswer("a line of the answer has no end")
            self._more()
        line = bytes(self._buffer[self._begin : at])
        self._begin = at + 2
        return line

    def _head(self) -> str:
        """The next head, which stays in the buffer."""
        searched = self._begin
        while (at := self._buffer.find(_END, searched, self._end)) < 0:
            if self._end - self._begin > HEAD:
                raise BadAnswer(f"the answer's head is longer than {HEAD} bytes")
            searched = max(self._begin, self._end - len(_END) + 1)
            searched -= self._more()
        return self._buffer[self._begin : at].decode("latin-1")

    def _more(self) -> int:
        """Receive what comes next behind what is there; returns by how much that was moved towards the beginning."""
        moved = self._begin
        if moved:
            self._buffer[: self._end - moved] = self._buffer[moved : self._end]
            self._begin, self._end = 0, self._end - moved
        if self._end == len(self._buffer):
            self._buffer.extend(bytes(len(self._buffer)))
        with memoryview(self._buffer) as view:
            came = self._socket.recv_into(view[self._end :])
        if not came:
            raise BadAnswer("the server closed the connection without an answer")
        self._end += came
        return moved


class Answer:
    """An answer. Its body is read by `read` or `readinto`, or left: then its connection can't be used again.

    Attributes:
        status: HTTP's.
        reason: What the server says of it.
        headers: Its headers.
        length: Bytes of the body that are still to come; None when only its end tells.
    """

    def __init__(self, wire: Wire, method: str, status: int, reason: str, headers: Headers, *, newer: bool) -> None:
        self._wire = wire
        self.status, self.reason, self.headers = status, reason, headers
        told = headers.get("connection", "").lower()
        self._keeps = "close" not in told and (newer or "keep-alive" in told)
        self._chunk: int | None = None
        """Bytes of the present chunk that are still to come; None where the body is not sent in chunks."""
        self.length: int | None = None
        if method == "HEAD" or status in _WITHOUT_BODY:
            self.length = 0
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._chunk = 0
        elif "content-length" in headers:
            self.length = _length(headers["content-length"])
            headers["content-length"] = str(self.length)
        else:
            self._keeps = False
        self._ended = self.length == 0

    @property
    def reusable(self) -> bool:
        """Whether the body was read to its end and the connection can take another question."""
        return self._ended and self._keeps and self._wire.quiet

    def readinto(self, view: memoryview) -> int:
        """Put some bytes of the body into `view`; returns how many, 0 at its end.

        Raises:
            BadAnswer: The connection ended before the body did.
            OSError: It broke.
        """
        if self._ended or not view:
            return 0
        left = self._next_chunk() if self._chunk is not None else self.length
        if left == 0:
            return 0
        came = self._wire.receive(view if left is None else view[:left])
        if not came:
            if left is not None:
                raise BadAnswer("the connection broke in mid-body")
            self._ended = True
        elif self._chunk is not None:
            self._chunk -= came
            if not self._chunk:
                self._wire.line()
        elif self.length is not None:
            self.length -= came
            self._ended = not self.length
        return came

    def read(self, most: int = -1) -> bytes:
        """The next bytes of the body, up to `most`; all that are left without it."""
        read, size = bytearray(), 1 << 16
        while most < 0 or len(read) < most:
            piece = bytearray(size if most < 0 else min(size, most - len(read)))
            if not (came := self.readinto(memoryview(piece))):
                break
            read += memoryview(piece)[:came]
        return bytes(read)

    def _next_chunk(self) -> int:
        """Bytes of the present chunk that are still to come, or those of the next one; 0 at the body's end."""
        if not self._chunk:
            found = _CHUNK.fullmatch(self._wire.line())
            if not found:
                raise BadAnswer("the answer's chunks are broken")
            self._chunk = int(found[1], 16)
            if not self._chunk:
                while self._wire.line():
                    pass  # trailers
                self._ended, self.length = True, 0
        return self._chunk


def _headers(head: str, at: int) -> Headers:
    """The headers of an answer's head, which begin at `at`."""
    lines = _HEADER.findall(head, at)
    if not len(lines) == head.count("\n") == head.count("\r"):
        raise BadAnswer("a header of the answer is broken")
    headers = {name.lower(): text for name, text in lines}
    if len(headers) != len(lines):
        for name in headers:
            headers[name] = ", ".join(text for other, text in lines if other.lower() == name)
    return headers


def _length(text: str) -> int:
    """What Content-Length says; where it came twice, both must say the same (RFC 9110, 8.6)."""
    told = {one.strip() for one in text.split(",")}
    length = told.pop()
    if told or not (length.isascii() and length.isdigit()):
        raise BadAnswer("the answer's length is broken")
    return int(length)
