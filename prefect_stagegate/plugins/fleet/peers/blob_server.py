"""A node's blob server: sends blobs by their digest to other nodes of its site, and nothing else.

    GET or HEAD /blobs/<64 hexadecimal digits>[?wait=SECONDS]

200 or 206 with the bytes; 401 without the site's token; 404 for a blob that is not here; 503 for one that is not here
yet. With `wait`, the answer about a blob that a staging of this node may bring waits for it so long.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import ssl
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.errors import CacheError, UsageError
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from prefect_stagegate.plugins.fleet.peers.peer_source import ACTIVITY, LONGEST_WAIT
from prefect_stagegate.serve.listening import is_loopback, run_server, split_address
from prefect_stagegate.serve.tokens import read_token
from prefect_stagegate.unreadable import UnreadableRecords

CONNECTIONS = 1024
"""Connections at a time; requests on further ones get 503."""
CHUNK = 1 << 20
"""Bytes that are read and sent at a time."""
LOOK_SECONDS = 0.1
"""Seconds between two looks for a blob that is waited for."""
WRITERS_SECONDS = 0.5
"""Seconds for which it is believed whether this node stages: a look reads all leases."""
MOST_CLAIMS = 4096
"""Files of the ingest folder that are looked at, at most, to see whether this node's stagings go on."""

log = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{0,19})")


def serve_blobs(
    cache: Cache,
    settings: Settings,
    bind: str,
    *,
    insecure: bool = False,
    started: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve the cache's blobs until the process gets SIGINT or SIGTERM.

    Args:
        cache: The node's cache.
        settings: Name the token, the certificates and the bandwidth.
        bind: `HOST:PORT` to listen at; port 0 for a free one.
        insecure: Whether to serve anybody who can connect from another machine.
        started: Called with the server's URL as soon as it accepts connections.

    Raises:
        UsageError: The address can't be listened at, the token or a certificate can't be used, or other machines could
            read blobs without a token or certificate.
    """
    fleet = settings.of(FleetSettings)
    token = read_token(fleet.peer_token_file, "STAGEGATE_PEER_TOKEN_FILE")
    host, _ = split_address(bind)
    if not (token or fleet.peer_ca or insecure or is_loopback(host)):
        raise UsageError(
            f"Anybody who can connect to {bind} could read this node's data",
            hint="Set STAGEGATE_PEER_TOKEN_FILE, or STAGEGATE_PEER_CERTIFICATE and STAGEGATE_PEER_CA; or pass "
            "--insecure where nobody else can connect.",
        )
    app = blob_app(cache, token, fleet.peer_bandwidth)
    run_server(app, bind, started, connections=CONNECTIONS, **_tls(fleet))


def blob_app(cache: Cache, token: str = "", bandwidth: int | None = None) -> ASGIApp:
    """The server's application.

    `token` is what requests must bring, empty for none; `bandwidth` limits all responses together, in bytes a second.
    """
    server = _BlobServer(cache, token, _Pace(bandwidth))

    # No router: it would answer other paths and methods before anybody looks at the token.
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await server.answer(Request(scope, receive))
        await response(scope, receive, send)

    return app


class _Pace:
    """Shares a bandwidth among all responses."""

    def __init__(self, bandwidth: int | None) -> None:
        self._bandwidth = bandwidth
        self._paid_until = 0.0

    async def spend(self, count: int) -> None:
        """Wait until `count` more bytes may be sent."""
        if self._bandwidth is not None:
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now) + count / self._bandwidth
            await asyncio.sleep(self._paid_until - now)


class _BlobServer:
    """Answers requests for the blobs of one cache."""

    def __init__(self, cache: Cache, token: str, pace: _Pace) -> None:
        self._cache, self._pace = cache, pace
        self._wanted = f"Bearer {token}".encode() if token else b""
        self._stages, self._stages_until = False, 0.0

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        # In constant time, so that the time of a refusal tells nothing of the token.
        if self._wanted and not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._wanted):
            request.state.is_refused = True  # `listening.STRANGERS`
            return PlainTextResponse("The token is missing or wrong\n", 401, {"WWW-Authenticate": "Bearer"})
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("Only GET and HEAD\n", 405)
        digest = str(request.scope["path"]).removeprefix("/blobs/")
        if not _DIGEST.fullmatch(digest):
            return PlainTextResponse("No such blob\n", 404)
        seconds = _seconds(request.query_params.get("wait", ""))
        file = await self._wait_for(f"blake3:{digest}", seconds)
        if file is not None:
            return _send(file, request, self._pace)
        if not await self._is_staging():
            return PlainTextResponse("No such blob\n", 404)
        activity = await asyncio.to_thread(self._activity)
        return PlainTextResponse("Not here yet\n", 503, {"Retry-After": "1", ACTIVITY: activity})

    async def _wait_for(self, digest: str, seconds: float) -> int | None:
        """The opened blob.

        None where it did not come within so many seconds, or no staging of this node brings it.
        """
        until = time.monotonic() + seconds
        while True:
            # Before the look: a staging that ended since may have brought it.
            staging = await self._is_staging() if seconds else False
            file = _opened(self._cache.layout.blob_path(digest))
            if file is not None or not staging or time.monotonic() >= until:
                return file
            await asyncio.sleep(LOOK_SECONDS)

    async def _is_staging(self) -> bool:
        if time.monotonic() > self._stages_until:
            self._stages = await asyncio.to_thread(self._has_writer)
            self._stages_until = time.monotonic() + WRITERS_SECONDS
        return self._stages

    def _has_writer(self) -> bool:
        with suppress(CacheError):  # nothing is staged into a cache that can't be read
            return any(lease.kind is LeaseKind.WRITER for lease in self._cache.leases.live(UnreadableRecords()))
        return False

    def _activity(self) -> str:
        """A text that changes whenever a staging of this node receives bytes."""
        with suppress(OSError):  # as above
            return str(_newest_write(self._cache.layout.ingest))
        return "0"


def _newest_write(ingest: Path) -> int:
    """When a file of an ingest folder was last written to, in nanoseconds since the epoch."""
    newest = ingest.stat().st_mtime_ns
    with os.scandir(ingest) as entries:
        for _, entry in zip(range(MOST_CLAIMS), entries, strict=False):
            try:
                newest = max(newest, entry.stat(follow_symlinks=False).st_mtime_ns)
            except FileNotFoundError:
                continue
    return newest


class _BlobResponse(Response):
    """Sends a part of an open file, and closes the file."""

    def __init__(self, file: int, part: range, pace: _Pace, *, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status, headers=headers, media_type="application/octet-stream")
        self._file, self._part, self._pace = file, part, pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # Without its end, the server closes the connection, and the other node sees that bytes are missing.
            if scope["method"] == "HEAD" or await self._send_part(Request(scope, receive), send):
                await send({"type": "http.response.body", "body": b""})
        finally:
            os.close(self._file)

    async def _send_part(self, request: Request, send: Send) -> bool:
        """Send the bytes; returns whether all of them left."""
        position = self._part.start
        while position < self._part.stop:
            if await request.is_disconnected():
                return False
            read = partial(os.pread, self._file, min(CHUNK, self._part.stop - position), position)
            # In a thread: a cold volume may take long, and all other responses would wait.
            data = await asyncio.to_thread(read)
            if not data:
                log.warning("%s is shorter than it was: run `stagegate verify`", request.url.path)
                return False
            await self._pace.spend(len(data))
            await send({"type": "http.response.body", "body": data, "more_body": True})
            position += len(data)
        return True


def _send(file: int, request: Request, pace: _Pace) -> Response:
    """The response with an open blob or the requested range of it. Several ranges are answered with the whole."""
    size = os.fstat(file).st_size
    part, status, headers = range(size), 200, {"Accept-Ranges": "bytes"}
    if match := _RANGE.fullmatch(request.headers.get("range", "")):
        part = range(int(match[1]), min(int(match[2]) + 1 if match[2] else size, size))
        if not part:
            os.close(file)
            return PlainTextResponse("No such range\n", 416, {"Content-Range": f"bytes */{size}"})
        status, headers["Content-Range"] = 206, f"bytes {part.start}-{part.stop - 1}/{size}"
    headers["Content-Length"] = str(len(part))
    return _BlobResponse(file, part, pace, status=status, headers=headers)


def _opened(path: str) -> int | None:
    """The open blob; None where there is none. A link or a device in a blob's place is no blob."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None


def _seconds(text: str) -> float:
    """The value of `wait`, at most `LONGEST_WAIT`; 0.0 for what is no number."""
    return min(float(text), LONGEST_WAIT) if re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text, re.ASCII) else 0.0


def _tls(settings: FleetSettings) -> dict[str, Any]:
    """The options of uvicorn for the site's certificates; none without a certificate.

    Raises:
        UsageError: A CA is set, and no certificate.
    """
    if not settings.peer_certificate:
        if settings.peer_ca:
            raise UsageError(
                "STAGEGATE_PEER_CA is set, and STAGEGATE_PEER_CERTIFICATE is not",
                hint="A blob server that asks for certificates needs one itself: a PEM file with certificate and key.",
            )
        return {}
    options: dict[str, Any] = {"ssl_certfile": str(settings.peer_certificate)}
    if settings.peer_ca:
        options |= {"ssl_ca_certs": str(settings.peer_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options
