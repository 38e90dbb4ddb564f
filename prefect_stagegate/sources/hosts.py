"""Addresses that no source may have: those at which a machine tells its own secrets to whoever asks from inside.

A source's URL comes from a spec, and a redirect from a server. Loopback and private addresses are allowed, since stores
on the premises live there; link-local ones are not, nor the other places of the clouds' metadata services.
STAGEGATE_ALLOWED_HOSTS names those that are wanted after all.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from prefect_stagegate.errors import UsageError
from prefect_stagegate.sources.base import public_url

FORBIDDEN = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local (RFC 3927): the metadata of AWS, Azure, Google Cloud, Oracle; ECS's credentials
        "fe80::/10",  # link-local (RFC 4291)
        "fd00:ec2::/32",  # AWS's services on the instance: metadata at ::254, EKS's credentials at ::23
        "fd20:ce::/32",  # Google Cloud's metadata
        "100.100.100.200/32",  # Alibaba Cloud's metadata
        "168.63.129.16/32",  # Azure's wire server
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_IPV4_BITS = 0xFFFFFFFF
HINT = "If it is meant, name its host in STAGEGATE_ALLOWED_HOSTS."

Allowed = Collection[str]
"""Names or addresses of hosts that may be asked wherever they are."""


class ForbiddenAddress(OSError):
    """A connection that is not made."""


def require_allowed(place: str, allowed: Allowed) -> None:
    """Refuse a host that is, or now resolves to, a forbidden address. One that doesn't resolve passes.

    Args:
        place: A URL, `host`, `host:port`, or empty.
        allowed: Hosts that may be asked wherever they are.

    Raises:
        UsageError: It is one.
    """
    host = _host(place)
    for address in addresses(host) if host else ():
        if is_forbidden(address, allowed):
            raise UsageError(f"{host} is {_told(host, address)}", hint=HINT, source=public_url(place))


def is_forbidden(address: str, allowed: Allowed) -> bool:
    """Whether an IP address is forbidden, however it is written, and no allowed host has it."""
    inside = any(form in network for form in _forms(address) for network in FORBIDDEN)
    return inside and not any(address in addresses(host) for host in allowed)


def connected(address: tuple[object, ...], allowed: Allowed) -> None:
    """Called with the socket address of each connection before it is made.

    Raises:
        ForbiddenAddress: It is forbidden.
    """
    if is_forbidden(str(address[0]), allowed):
        raise ForbiddenAddress(f"{address[0]} is {_told(str(address[0]), str(address[0]))}. {HINT}")


def addresses(host: str) -> list[str]:
    """The IP addresses of a host, its own when it is one; none when nobody knows it."""
    with suppress(ValueError):
        return [str(ip_address(host))]  # also where the machine speaks no IPv6
    with suppress(OSError, UnicodeError):
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    return []


def _told(host: str, address: str) -> str:
    at = "" if host == address else f"at {address}, "
    return f"{at}an address where machines tell their secrets to those inside"


def _host(place: str) -> str:
    with suppress(ValueError):
        return str(ip_address(place))
    with suppress(ValueError):
        return urlsplit(place if "://" in place else f"//{place}").hostname or ""
    return ""


def _forms(address: str) -> Iterator[IPv4Address | IPv6Address]:
    """The address, and the IPv4 address that an IPv6 one leads to."""
    with suppress(ValueError):
        one = ip_address(address.partition("%")[0])
        yield one
        if isinstance(one, IPv6Address):
            number = int(one)
            if number >> 32 == 0 or one in _NAT64:  # IPv4-compatible (RFC 4291), NAT64 (RFC 6052)
                yield IPv4Address(number & _IPV4_BITS)
            yield from filter(None, (one.ipv4_mapped, one.sixtofour))
