"""A forward proxy on this machine's loopback, by which a library's HTTP client reaches one endpoint and nothing else.

obstore, deltalake and s3fs follow every redirect and can't be told not to, but each takes a proxy. So does this package
decide where they connect to: to the endpoint's own host and port, at an address that the policy allows.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import threading
import weakref
from asyncio import StreamReader, StreamWriter
from base64 import b64encode
from contextlib import suppress
from functools import lru_cache, partial

from prefect_stagegate.errors import SourceError, SourceUnavailable
from prefect_stagegate.http.policy import (
    ALLOW_HINT,
    CONNECT_SECONDS,
    Allowed,
    ForbiddenAddress,
    addresses,
    is_blocked,
    origin_of,
    refusal,
)
from prefect_stagegate.http.proxies import environment_proxies, proxy_for

PIECE = 256 << 10
"""Bytes that are passed on at a time, and the longest head of a request."""
_REQUEST_LINE = re.compile(rb"([A-Z]+) (?:http://)?([^/ ]+)(/[^ ]*)? (HTTP/1\.[01])")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,18}) *\r\n", re.IGNORECASE)
_LOGIN = re.compile(rb"\r\nproxy-authorization: *([^\r]*)", re.IGNORECASE)
Connection = tuple[StreamReader, StreamWriter]


class EndpointProxy:
    """The way of one store's library to its endpoint. It ends when this object is collected.

    Args:
        endpoint: The endpoint's http or https URL.
        allowed: Hosts that are never blocked.
    """

    def __init__(self, endpoint: str, allowed: Allowed = ()) -> None:
        self._origin, self._allowed = origin_of(endpoint), tuple(allowed)
        self._upstream = proxy_for(self._origin, environment_proxies())
        self.failure: SourceError | None = None
        """Why the last connection was not made; None after one that was. The libraries' own errors don't tell."""
        # Other users of this machine reach the port, too, and must not use it.
        password = secrets.token_hex(16)
        self._login = _basic("stagegate", password)
        listener, loop = socket.create_server(("127.0.0.1", 0)), _loop(os.getpid())
        self.url = f"http://stagegate:{password}@127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.start_server(partial(_serve, weakref.ref(self)), sock=listener, limit=PIECE)
        server = asyncio.run_coroutine_threadsafe(serving, loop).result()
        weakref.finalize(self, loop.call_soon_threadsafe, server.close)

    async def connect(self, target: str, login: str) -> Connection:
        """Connect to the endpoint, or to its proxy where the environment names one.

        Raises:
            SourceError: `target`, which the library asks for, is not the endpoint; or it can't be reached.
        """
        here = self._origin.address
        try:
            self._require_endpoint(target, login)
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._connected()
        except TimeoutError:
            self.failure = SourceUnavailable(f"{here} does not answer", hint="Check the server's address and port.")
        except SourceError as error:
            self.failure = error
        else:
            self.failure = None
            return connection
        raise self.failure

    def _require_endpoint(self, target: str, login: str) -> None:
        # Also by a bucket's name before the host's, but at the endpoint's address. A library that follows a redirect
        # to another host leaves the login out.
        here = self._origin.address
        if not f".{target}".endswith((f".{here}", f".{self._origin.host}")) or login != self._login:
            raise SourceError(
                f"{here} redirects to {target[:300]}, and requests with credentials follow no redirect",
                hint=f"If {target[:300]} is the right server, set `endpoint_url` to it.",
            )

    async def _connected(self) -> Connection:
        found = await asyncio.to_thread(addresses, self._origin.host)
        if blocked := next((address for address in found if is_blocked(address, self._allowed)), ""):
            raise ForbiddenAddress(refusal(self._origin.host, blocked), hint=ALLOW_HINT)
        place = origin_of(self._upstream.url) if self._upstream else self._origin
        # By the addresses that were judged: a second look at DNS could give others.
        for address in [place.host] if self._upstream else found:
            with suppress(OSError):
                return await asyncio.open_connection(address, place.port, limit=PIECE)
        if not (found or self._upstream):
            raise SourceUnavailable(
                f"Could not resolve the name of {place.address}", hint="Check its spelling and the DNS."
            )
        raise SourceUnavailable(
            f"Connection refused by {place.address}", hint="Check the server's address and port, and that it runs."
        )

    def rewritten(self, head: bytes) -> bytes:
        """A request's head as the endpoint expects it, or its proxy; without this proxy's password."""
        head = _LOGIN.sub(b"", head)
        if not self._upstream:
            return _REQUEST_LINE.sub(rb"\1 \3 \4", head, count=1)
        if self._upstream.user:
            login = _basic(self._upstream.user, self._upstream.password)
            head = head.replace(b"\r\n", b"\r\nProxy-Authorization: " + login.encode() + b"\r\n", 1)
        return head

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection of the library."""
        head = await reader.readuntil(b"\r\n\r\n")
        match, login = _REQUEST_LINE.match(head), _LOGIN.search(head)
        if not match:
            return
        target = match[2].decode("latin-1")
        try:
            connection = await self.connect(target, login[1].decode("latin-1") if login else "")
        except SourceError as error:
            # A 502 is tried again, a 421 is not.
            status = "502 Bad Gateway" if error.retryable else "421 Misdirected Request"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        if match[1] == b"CONNECT":
            await self._tunnel(head, connection, reader, writer)
        else:
            await self._forward(head, target, connection, reader, writer)

    async def _tunnel(self, head: bytes, connection: Connection, reader: StreamReader, writer: StreamWriter) -> None:
        """Pass on whatever both ends send."""
        answers, requests = connection
        if self._upstream:
            requests.write(self.rewritten(head))
        else:
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(_pass_on(reader, requests), _pass_on(answers, writer))

    async def _forward(
        self, head: bytes, target: str, connection: Connection, reader: StreamReader, writer: StreamWriter
    ) -> None:
        """Pass on the requests of a connection without TLS, each of which names its target, and the responses."""
        answers, requests = connection
        answering = asyncio.create_task(_pass_on(answers, writer))
        try:
            while True:
                requests.write(self.rewritten(head))
                remaining = int(length[1]) if (length := _LENGTH.search(head)) else 0
                while remaining and (data := await reader.read(min(PIECE, remaining))):
                    requests.write(data)
                    await requests.drain()
                    remaining -= len(data)
                head = await reader.readuntil(b"\r\n\r\n")
                if (match := _REQUEST_LINE.match(head)) is None or match[2].decode("latin-1") != target:
                    return
        finally:
            answering.cancel()
            requests.close()


def failure_by(proxy: EndpointProxy | None, *, source: str, key: str = "") -> SourceError | None:
    """Why a library's last connection by its proxy was not made; None where it was, and without a proxy."""
    failure = proxy.failure if proxy else None
    return type(failure)(failure.message, hint=failure.hint, source=source, object=key) if failure else None


async def _serve(reference: weakref.ref[EndpointProxy], reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError, EOFError, asyncio.LimitOverrunError):
        if proxy := reference():
            await proxy.serve(reader, writer)
    writer.close()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    writer.close()


@lru_cache(maxsize=1)
def _loop(_process: int) -> asyncio.AbstractEventLoop:
    """The event loop of this process's proxies: a forked process has no thread of its parent's."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="stagegate-endpoints", daemon=True).start()
    return loop


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
