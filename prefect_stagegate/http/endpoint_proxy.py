"""A forward proxy on this machine's loopback, by which a library's HTTP client reaches one endpoint and nothing else.

obstore, deltalake and s3fs follow every redirect and can't be told not to, but each takes a proxy.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from functools import lru_cache

from prefect_stagegate.errors import SourceError, SourceUnavailable
from prefect_stagegate.http import policy
from prefect_stagegate.http.proxies import environment_proxies, proxy_for

PIECE = 256 << 10
"""Bytes that are passed on at a time, and the longest head of a request."""
_REQUEST_LINE = re.compile(rb"([A-Z]+) (?:http://)?([^/ ]+)(/[^ ]*)? HTTP/1\.[01]\r\n")


@lru_cache(maxsize=1024)
class _EndpointProxy:
    """The way to one endpoint, and to hosts below its name: a bucket's name may stand before it."""

    def __init__(self, endpoint: str, allowed: policy.Allowed, process: int) -> None:
        self._here, self._allowed = policy.origin_of(endpoint), allowed
        self.failure: SourceError | None = None
        """Why the last connection was not made; None after one that was."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.start_server(self._serve, sock=listener, limit=PIECE)
        asyncio.run_coroutine_threadsafe(serving, _loop(process)).result()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection of a library: a tunnel, or one request without TLS."""
        with suppress(OSError, EOFError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            match = _REQUEST_LINE.match(head)
            try:
                answers, requests = await self._connect(match[2].decode("latin-1") if match else "")
            except SourceError as error:
                self.failure = error
                # A 502 is tried again, a 421 is not.
                status = "502 Bad Gateway" if error.retryable else "421 Misdirected Request"
                body = f"<Error><Code>Refused</Code><Message>{error.message}</Message></Error>".encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            else:
                self.failure = None
                if match and match[1] != b"CONNECT":
                    # Not every server knows a request line with a host. One request: the next may name another host.
                    requests.write(_REQUEST_LINE.sub(rb"\1 \3 HTTP/1.1\r\nConnection: close\r\n", head, count=1))
                else:
                    writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                await asyncio.gather(_pass_on(reader, requests), _pass_on(answers, writer))
        writer.close()

    async def _connect(self, target: str) -> tuple[StreamReader, StreamWriter]:
        here = self._here.address
        address = target if target.rpartition(":")[2].isdecimal() else f"{target}:{self._here.port}"
        if not f".{address}".endswith(f".{here}"):
            raise SourceError(
                f"{here} redirects to {target[:300]}, and requests with credentials follow no redirect",
                hint=f"If {target[:300]} is the right server, set `endpoint_url` to it.",
            )
        host = address.rpartition(":")[0].strip("[]")
        found = await asyncio.to_thread(policy.addresses, host)
        if blocked := next((place for place in found if policy.is_blocked(place, self._allowed)), ""):
            raise policy.ForbiddenAddress(policy.refusal(host, blocked), hint=policy.ALLOW_HINT)
        # By the policy.addresses that were judged: a second look at DNS could give others.
        for place in found:
            with suppress(OSError):  # a TimeoutError, too
                async with asyncio.timeout(policy.CONNECT_SECONDS):
                    return await asyncio.open_connection(place, self._here.port, limit=PIECE)
        message = f"Connection refused by {here}" if found else f"Could not resolve the name of {here}"
        raise SourceUnavailable(message, hint="Check the server's address and port, and that it runs.")


def proxy_of(endpoint: str, allowed: policy.Allowed) -> str:
    """The URL of the proxy for an endpoint; empty without one, and where the environment names a proxy for it."""
    if "://" not in endpoint or proxy_for(policy.origin_of(endpoint), environment_proxies()):
        return ""
    return _EndpointProxy(endpoint, tuple(allowed), os.getpid()).url


def failure_at(endpoint: str, allowed: policy.Allowed, *, source: str, key: str = "") -> SourceError | None:
    """Why the last connection by an endpoint's proxy was not made: the libraries' own errors don't tell."""
    failure = _EndpointProxy(endpoint, tuple(allowed), os.getpid()).failure if proxy_of(endpoint, allowed) else None
    return type(failure)(failure.message, hint=failure.hint, source=source, object=key) if failure else None


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
