"""The proxies that the environment names: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in either case.

The proxy connects to the server, so the server's address can only be checked by resolving its name here.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.transport.http.messages import Proxies
from prefect_stagegate.transport.http.request_policy import UrlOrigin, origin_of


class Proxy(NamedTuple):
    """A proxy that speaks HTTP."""

    url: str
    """Without user and password: libcurl shows it in errors."""
    user: str
    password: str


def environment_proxies() -> Proxies:
    """The environment's proxy settings now; empty where it names no proxy."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ()
    from urllib.request import getproxies_environment  # late, with all of Python's client

    settings = getproxies_environment()
    # Sorted, because clients with equal settings share connections.
    return tuple(sorted(settings.items())) if settings.keys() - {"no"} else ()


def proxy_for(origin: UrlOrigin, proxies: Proxies) -> Proxy | None:
    """The proxy of an origin; None for a direct connection.

    Raises:
        UsageError: The proxy doesn't speak HTTP.
    """
    settings = dict(proxies)
    url = settings.get(origin.scheme) or settings.get("all", "")
    if not url or is_named(origin, settings.get("no", "")):
        return None
    return _parsed(url if "://" in url else f"http://{url}")


def is_named(origin: UrlOrigin, hosts: str) -> bool:
    """Whether a list like NO_PROXY has an origin's host: its name, one above it, or a network of its address.

    No name is looked up.

    >>> is_named(origin_of("http://10.1.2.3"), "a.b, 10.0.0.0/8"), is_named(origin_of("http://a.b"), "10.0.0.0/8, b")
    (True, True)
    """
    for network in hosts.split(","):
        with suppress(ValueError):
            if ip_address(origin.host) in ip_network(network.strip(), strict=False):
                return True
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    # Python's own check compares networks as names.
    return bool(proxy_bypass_environment(origin.address, {"no": hosts}))


@lru_cache(maxsize=16)
def _parsed(url: str) -> Proxy:
    try:
        origin = origin_of(url)
    except SourceError:
        origin = None  # its message is not shown: it may hold the password
    if origin is None or origin.scheme != "http":
        shown = f"{url.partition('://')[0]}://{url.partition('://')[2].rpartition('@')[2]}"
        hint = "Set HTTPS_PROXY to http://host:port, or add the server to NO_PROXY."
        raise UsageError(f"The proxy {shown} can't be used: only proxies that speak HTTP are supported", hint=hint)
    parts = urlsplit(url)
    return Proxy(f"http://{origin.address}", unquote(parts.username or ""), unquote(parts.password or ""))
