"""The proxies that the environment names: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in either case.

A proxy makes the connection to the server, so the server's own address is judged by what its name resolves to here.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass  # reads variables, asks nobody

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.http.policy import (
    ALLOW_HINT,
    Allowed,
    ForbiddenAddress,
    Origin,
    addresses,
    is_blocked,
    origin_of,
    refusal,
)

_NAMES = ("http", "https", "all", "no")


class Proxy(NamedTuple):
    """A proxy that is spoken to by HTTP."""

    url: str
    """Without user and password: libcurl shows it in errors."""
    user: str
    password: str


def proxy_variables() -> tuple[str, ...]:
    """The values that decide about proxies."""
    get = os.environ.get
    return tuple(get(f"{name}_proxy", "") + " " + get(f"{name.upper()}_PROXY", "") for name in _NAMES)


def proxy_for(origin: Origin) -> Proxy | None:
    """What the environment says about an origin; None for a direct connection.

    Raises:
        UsageError: It names a proxy that is not spoken to by HTTP.
    """
    named = getproxies()
    url = named.get(origin.scheme) or named.get("all", "")
    if not url or proxy_bypass(origin.address):
        return None
    return _parsed(url if "://" in url else f"http://{url}")


def require_proxied_allowed(origin: Origin, allowed: Allowed) -> None:
    """Judge a server that a proxy connects to. Asks DNS.

    Raises:
        ForbiddenAddress: One of its addresses is blocked.
    """
    for address in addresses(origin.host):
        if is_blocked(address, allowed):
            raise ForbiddenAddress(refusal(origin.host, address), hint=ALLOW_HINT)


@lru_cache(maxsize=16)
def _parsed(url: str) -> Proxy:
    try:
        origin = origin_of(url)
    except SourceError:
        origin = None  # a password may stand in what the parser says
    if origin is None or origin.scheme != "http":
        shown = f"{url.partition('://')[0]}://{url.partition('://')[2].rpartition('@')[2]}"
        hint = "Name it as http://host:port in HTTPS_PROXY, or the server in NO_PROXY."
        raise UsageError(f"The proxy {shown} is not one that HTTP is spoken to", hint=hint)
    parts = urlsplit(url)
    return Proxy(f"http://{origin.address}", unquote(parts.username or ""), unquote(parts.password or ""))
