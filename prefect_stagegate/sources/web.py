"""The HTTP client that fsspec is given: patient with slow answers, and wary of where it is led."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from prefect_stagegate.sources.hosts import Allowed, connected

CONNECT_SECONDS = 5
FOLLOWING = frozenset({"accept", "accept-encoding", "if-match", "if-range", "range", "user-agent"})
"""The request's headers that go along to another server; any other may hold a credential."""

Client = Callable[..., Awaitable[aiohttp.ClientSession]]


def web_client(idle: float, allowed: Allowed) -> Client:
    """What makes the client: fsspec's `get_client`.

    Args:
        idle: Seconds without a byte after which a read is given up; in all it may take as long as it likes.
        allowed: Hosts that may be asked wherever they are.
    """
    redirects = aiohttp.TraceConfig()
    redirects.on_request_redirect.append(_drop_credentials)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle)

    def connect(info: Any) -> socket.socket:
        # Called for each connection, so a name that changed its address, or a redirect, is judged as well.
        connected(info[4], allowed)
        return socket.socket(*info[:3])

    async def client(**kwargs: Any) -> aiohttp.ClientSession:
        settings = {"timeout": timeout, "trace_configs": [redirects], **kwargs}
        settings.setdefault("connector", aiohttp.TCPConnector(socket_factory=connect))
        return aiohttp.ClientSession(**settings)

    return client


async def _drop_credentials(_: object, __: object, redirect: aiohttp.TraceRequestRedirectParams) -> None:
    """Let nothing secret follow to another server; aiohttp itself drops the headers that HTTP knows as such."""
    answer = redirect.response.headers
    target = urljoin(str(redirect.url), answer.get("Location") or answer.get("URI") or "")
    if urlsplit(target)[:2] != urlsplit(str(redirect.url))[:2]:
        for name in [name for name in redirect.headers if name.lower() not in FOLLOWING]:
            redirect.headers.popall(name, None)
