"""HTTP settings that all object stores share, and the endpoint's address."""

from __future__ import annotations

import urllib.parse

from prefect_stagegate.errors import UsageError
from prefect_stagegate.transport.http import Allowed, Client, environment_proxies, trusted_authorities

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


def http_client(ca_file: str, idle: float, allowed: Allowed) -> Client:
    """The client of a bucket's requests. It follows no redirects, because requests may carry a session token.

    Raises:
        UsageError: The CA file can't be used.
    """
    if ca_file:
        trusted_authorities(ca_file)  # now, while the error can still name the source
    return Client(tuple(allowed), ca_file, idle, proxies=environment_proxies(), redirects=False)
