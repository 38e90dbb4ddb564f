"""HTTP settings that all object stores share: connections, time-outs, certificates, and the endpoint's address."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect_stagegate.errors import UsageError
from prefect_stagegate.transport.http import Allowed, Client, environment_proxies, origin_of
from prefect_stagegate.transport.http.proxies import proxy_for
from prefect_stagegate.transport.http.request_policy import CONNECT_SECONDS

IDLE_SECONDS = 30.0
"""Seconds without a byte after which a read fails."""
RETRIES = 3
"""Retries of a request that reads no object's bytes."""
NOWHERE = "http://[fe80::1]:1"
"""A proxy that no connection reaches, and no packet is sent to: a link-local address without its interface."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def usable_endpoint(endpoint: str, *, tls: bool = True) -> str:
    """An endpoint with its scheme and without a slash at its end; empty stays empty.

    Raises:
        UsageError: It holds credentials, or is no address.
    """
    if not endpoint:
        return ""
    if "://" not in endpoint:
        endpoint = f"{'https' if tls else 'http'}://{endpoint}"
    try:
        parts = urllib.parse.urlsplit(endpoint)
        canonical_url(endpoint)
    except ValueError:  # of its port, its IPv6 address or its international name; it may hold credentials, too
        parts = urllib.parse.urlsplit("")
    if parts.username or parts.password or not parts.hostname:
        raise UsageError(
            "The endpoint holds credentials" if parts.hostname else "The endpoint is no usable address",
            hint="Write https://host:port, and set credentials by their own options or a block.",
        ) from None
    return endpoint.rstrip("/")


def canonical_url(url: str) -> str:
    """An address as clients send it: host in lower case, no default port, percent-encoded path.

    A signature covers the Host header, so it must be known before the client writes it.

    >>> canonical_url("https://S3.Example.org:443/a b"), canonical_url("http://[::1]:8333")
    ('https://s3.example.org/a%20b', 'http://[::1]:8333')
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host if host.isascii() else host.encode("idna").decode()
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{urllib.parse.quote(parts.path, safe='/%')}"


def no_redirects(endpoint: str) -> dict[str, str]:
    """Options by which clients of the Rust crate `object_store`, which follow redirects, reach an endpoint's host only.

    Empty without an endpoint, and where the environment names a proxy for it.
    """
    if not endpoint or proxy_for(origin_of(endpoint), environment_proxies()):
        return {}
    return {"proxy_url": NOWHERE, "proxy_excludes": origin_of(endpoint).host}


def client_options(endpoint: str, ca_file: str, idle: float) -> dict[str, Any]:
    """Options of obstore's HTTP client: a time limit for each next byte, none for the whole request.

    Raises:
        UsageError: The CA file can't be read.
    """
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=idle),
        # obstore's own limit of the whole request would end long reads that progress.
        "timeout": timedelta(days=3650),
    }
    if ca_file:
        try:
            options["root_certificate"] = Path(ca_file).expanduser().read_bytes()
        except OSError as error:
            raise UsageError(
                f"The CA file {ca_file} can't be read: {error.strerror}", hint="Check the `verify` option."
            ) from error
    return options


def http_client(ca_file: str, idle: float, allowed: Allowed) -> Client:
    """This package's own client. It follows no redirects, because requests may carry a session token."""
    return Client(tuple(allowed), ca_file, idle, proxies=environment_proxies(), redirects=False)


def open_twice(kind: Callable[..., Any], bucket: str, **settings: Any) -> tuple[Any, Any]:
    """A bucket by a class of obstore's stores: one with retries, for listings and small requests, and one without."""
    configs = ({"max_retries": count, "retry_timeout": timedelta(seconds=60)} for count in (RETRIES, 0))
    with_retries, without = (kind(bucket, retry_config=config, **settings) for config in configs)
    return with_retries, without
