"""What a fault proxy does to one answer: the ways in which servers, networks and the machines between them fail."""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Protocol
from xml.sax.saxutils import escape


class Out(Protocol):
    """What the body is written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of it."""

    def flush(self) -> None:
        """Hand what was written to the network."""


Wait = Callable[[float | None], object]
"""Waits so many seconds, or without an end, though never beyond the proxy's."""


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with this status instead of asking the server."""

    code: int
    error: str = ""
    """S3's name for the error, in the body: `SlowDown`, `ExpiredToken`."""
    retry_after: str = ""
    """The Retry-After header, or none."""
    location: str = ""
    """The Location header, or none."""

    def headers(self) -> dict[str, str]:
        """The headers that come with it."""
        headers = {"Retry-After": self.retry_after, "Location": self.location}
        return {name: value for name, value in headers.items() if value}

    def body(self) -> bytes:
        """The body as S3 writes it; empty without an error's name."""
        return f"<Error><Code>{self.error}</Code></Error>".encode() if self.error else b""


@dataclass(frozen=True, slots=True)
class Echo:
    """Answer with this status, and repeat the credentials and the address of the request in one place."""

    code: int
    part: str
    """`reason`, `body`, `document` (S3's error, in its message), or the name of a header."""
    around: str = "{}"
    """What stands around them."""

    def echo(self, path: str, headers: Message[str, str]) -> str:
        """What is repeated."""
        authorization = headers.get("Authorization", "")
        kind, _, value = authorization.partition(" ")
        login = base64.b64decode(value).decode(errors="replace") if kind == "Basic" else ""
        return self.around.format(f"{authorization} {login} {headers.get('x-amz-security-token', '')} {path}")

    def reason(self, echo: str) -> str | None:
        """The reason phrase; None for the usual one."""
        return echo if self.part == "reason" else None

    def headers(self, echo: str) -> dict[str, str]:
        """The headers that come with it."""
        return {} if self.part in ("reason", "body", "document") else {self.part: echo}

    def body(self, echo: str) -> bytes:
        """The body."""
        documents = {"body": echo, "document": f"<Error><Code>Odd</Code><Message>{escape(echo)}</Message></Error>"}
        return documents.get(self.part, "").encode()


@dataclass(frozen=True, slots=True)
class Truncate:
    """Send so many bytes of the body and close the connection."""

    after: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Send so many bytes of the body and reset the connection: the other side gets a RST."""

    after: int


@dataclass(frozen=True, slots=True)
class Flip:
    """Change one byte of the body."""

    at: int
    """Counted from the body's beginning, and round again behind its end."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Send so many bytes of the body and then nothing, until the proxy ends."""

    after: int


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the whole body in so many pieces, with a pause of so many seconds before each."""

    pieces: int
    pause: float


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Send another body, with a Content-Length that fits it."""

    change: Callable[[bytes], bytes]
    """Makes it of the one that the server sent."""


Fault = Status | Echo | Truncate | Reset | Flip | Stall | Drip | Rewrite


def altered(body: bytes, fault: Fault | None) -> bytes:
    """The body as it is sent: with one byte changed, or rewritten, when that is the fault."""
    if isinstance(fault, Rewrite):
        return fault.change(body)
    if not (isinstance(fault, Flip) and body):
        return body
    at = fault.at % len(body)
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def send(body: bytes, fault: Fault | None, out: Out, connection: socket.socket, wait: Wait) -> int:
    """Send a body as the fault has it; returns how many bytes were sent.

    Args:
        body: All of it.
        fault: What goes wrong.
        out: Writes to the connection.
        connection: Where it goes.
        wait: How to wait.
    """
    if isinstance(fault, Drip):
        size = max(1, -(-len(body) // fault.pieces))
        for start in range(0, len(body), size):
            wait(fault.pause)
            out.write(body[start : start + size])
            out.flush()
        return len(body)
    sent = body[: fault.after] if isinstance(fault, Truncate | Reset | Stall) else body
    out.write(sent)
    if len(sent) < len(body):
        out.flush()
        if isinstance(fault, Stall):
            wait(None)
        if isinstance(fault, Reset):
            # A closing socket that may not linger sends a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    return len(sent)
