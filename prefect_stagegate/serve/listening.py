"""What this node's servers share: the address that they listen at, and how one of them runs until a signal."""

from __future__ import annotations

import logging
import socket
import ssl
from asyncio import BaseTransport, TimerHandle
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from prefect_stagegate.errors import UsageError

END_SECONDS = 1
"""Seconds that responses under way may take when the server ends."""
STRANGERS = 10
"""One connection in so many may be a stranger's: of somebody who has asked nothing yet, or was refused."""
IDLE_SECONDS = 30.0
"""Seconds, and at most twice as many, after which a connection is cut whose other end does nothing."""

log = logging.getLogger(__name__)


def run_server(app: ASGIApp, bind: str, started: Callable[[str], object], *, connections: int, **options: Any) -> None:
    """Serve an application until the process gets SIGINT or SIGTERM.

    Args:
        app: The application.
        bind: `HOST:PORT` to listen at; port 0 for a free one.
        started: Called with the server's URL as soon as it accepts connections.
        connections: Connections at a time; requests on further ones get 503.
        options: More options of uvicorn: its certificates.

    Raises:
        UsageError: The address can't be listened at, or a certificate can't be used.
    """
    host, port = split_address(bind)
    config = server_config(app, connections, **options)
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"The certificate can't be used: {error.strerror or error}",
            hint="STAGEGATE_PEER_CERTIFICATE names a PEM file with certificate and key, STAGEGATE_PEER_CA its CA's.",
        ) from error
    try:
        listener = listen(host, port)
    except OSError as error:
        raise UsageError(f"Could not listen at {bind}: {error.strerror}", hint="Choose another --bind.") from error
    with listener:
        shown = f"[{host}]" if ":" in host else host
        started(f"{'https' if config.is_ssl else 'http'}://{shown}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])


def server_config(app: ASGIApp, connections: int, **options: Any) -> uvicorn.Config:
    """How uvicorn runs a server of this node; the arguments are those of `run_server`."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=ImpatientProtocol,
        ws="none",
        server_header=False,
        proxy_headers=False,  # else whoever is on this machine could write from which address a request came
        limit_concurrency=connections,
        timeout_graceful_shutdown=END_SECONDS,
        **options,
    )


class ImpatientProtocol(H11Protocol):
    """Cuts connections off whose other end sends no whole request, or stops reading: uvicorn waits for ever."""

    _timer: TimerHandle | None = None
    _last: tuple[object, int] = (None, 0)
    """The request and the count of `_resumed` at the last look."""
    since = 0.0
    """When it was made, by the loop's clock."""
    _resumed = 0
    """How often the other end had read so much that more could be written."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin to watch a new connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._cut_oldest_stranger()
        self._timer = self.loop.call_later(IDLE_SECONDS, self._look)

    def _cut_oldest_stranger(self) -> None:
        """Keep the places of those who may ask: whoever has no token must not take them all."""
        self.since = self.loop.time()
        strangers = [other for other in self.connections if isinstance(other, ImpatientProtocol) and other.is_stranger]
        if len(strangers) > max(1, (self.limit_concurrency or 0) // STRANGERS):
            min(strangers, key=lambda other: other.since).transport.abort()

    @property
    def is_stranger(self) -> bool:
        """Whether its other end has asked nothing yet, or was refused."""
        scope: Mapping[str, Any] | None = self.scope  # uvicorn's type says otherwise
        # An aborted one is still listed until the loop's next turn.
        return not self.transport.is_closing() and (scope is None or "is_refused" in scope["state"])

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Note that the other end reads."""
        self._resumed += 1
        super().resume_writing()

    def _look(self) -> None:
        # A response that is being made, or waits for a blob, keeps its connection.
        has_asked = self.cycle is not None  # uvicorn's type says otherwise
        waits = not has_asked or self.cycle.response_complete or self.flow.write_paused
        seen = (self.cycle, self._resumed)
        if waits and seen == self._last:
            if self.flow.write_paused:
                path = self.cycle.scope["raw_path"].decode()[:200]
                log.warning("A client stopped reading %s, and was cut off", path)
            self.transport.abort()
            return
        self._last = seen
        self._timer = self.loop.call_later(IDLE_SECONDS, self._look)


def listen(host: str, port: int) -> socket.socket:
    """The socket at which a server listens.

    Raises:
        OSError: The address can't be listened at.
    """
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Inherited by each connection: head and body are sent apart, and the second would wait 40 ms for the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def split_address(bind: str) -> tuple[str, int]:
    """The host and port of `HOST:PORT`.

    Raises:
        UsageError: It is no such address.
    """
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and port.isascii() and port.isdigit() and len(port) <= len("65535") and int(port) <= 65535):  # noqa: PLR2004
        raise UsageError(f"{bind!r} is no address to listen at", hint="Write HOST:PORT, as in --bind 127.0.0.1:8445.")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host, by its name or address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
