"""The sockets of one loop: judged before they connect, and looked at before they are used again.

libcurl asks for each socket by a callback with its address, after DNS, so a name that resolves to another address at
the second look changes nothing. Bytes that a server sent while nobody had asked would be taken for the response to the
next request on that connection: libcurl looks for them once a second only. So each connection is polled right before a
request goes out on it.
"""

from __future__ import annotations

import select
import socket
from typing import Any

import pycurl

from prefect_stagegate.http.policy import Allowed, is_blocked

Endpoints = tuple[str, int, str, int]
"""Remote address and port, local address and port."""


class Sockets:
    """The sockets that a loop's connections use."""

    def __init__(self) -> None:
        self._opened: list[int] = []
        """Descriptors that no request went out on yet."""
        self._polls: dict[Endpoints, tuple[int, select.poll]] = {}
        """The descriptor of each connection that requests went out on, and what it is looked at by."""

    def open(self, address: Any, allowed: Allowed) -> int | str:
        """A new socket for an address, for libcurl to connect; or the address as text, where it is blocked."""
        host = str(address.addr[0])
        if is_blocked(host, allowed):
            return host
        made = socket.socket(address.family, address.socktype | socket.SOCK_CLOEXEC, address.protocol)
        descriptor = made.detach()
        # A descriptor that comes back was closed meanwhile.
        self._opened = [other for other in self._opened if other != descriptor and _endpoints(other)]
        self._opened.append(descriptor)
        self._polls = {ends: polled for ends, polled in self._polls.items() if polled[0] != descriptor}
        return descriptor

    def is_silent(self, endpoints: Endpoints) -> bool:
        """Whether nothing came on a connection since its last response. One that is new is silent."""
        for descriptor in self._opened:
            if _endpoints(descriptor) == endpoints:
                self._opened.remove(descriptor)
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                self._polls[endpoints] = (descriptor, poll)
                return True
        polled = self._polls.get(endpoints)
        return not (polled and polled[1].poll(0))


def shut_down(handle: pycurl.Curl) -> None:
    """End a connection whose response was not one to the request: libcurl would use it again."""
    descriptor = handle.getinfo(pycurl.ACTIVESOCKET)
    if descriptor >= 0:
        borrowed = socket.socket(fileno=descriptor)
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended
        finally:
            borrowed.detach()


def _endpoints(descriptor: int) -> Endpoints | None:
    """Both ends of a connected socket; None for one that is closed or still connects."""
    try:
        borrowed = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        return (*borrowed.getpeername()[:2], *borrowed.getsockname()[:2])
    except OSError:
        return ("", 0, "", 0)  # connecting
    finally:
        borrowed.detach()
