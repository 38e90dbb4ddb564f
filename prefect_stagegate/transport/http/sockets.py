"""The sockets of one loop: their addresses are checked before they connect, and unread bytes before they are reused.

libcurl asks for each socket by a callback, with the address after DNS, so a name can't resolve to another address after
the check. Bytes that a server sent before any request would be taken for the response to the next request on that
connection. libcurl looks for them only once a second, so each connection is polled right before a request is sent.
"""

from __future__ import annotations

import select
import socket
from typing import Any

import pycurl

from prefect_stagegate.transport.http.request_policy import Allowed, is_blocked

Endpoints = tuple[str, int, str, int]
"""Remote address and port, local address and port."""


class Sockets:
    """The sockets that a loop's connections use."""

    def __init__(self) -> None:
        self._opened: list[int] = []
        """Descriptors of new connections, on which no request was sent yet."""
        self._polls: dict[Endpoints, tuple[int, select.poll]] = {}
        """The descriptor and poll object of each used connection."""

    def open(self, address: Any, allowed: Allowed) -> int | str:
        """The descriptor of a new socket for libcurl to connect; or the address as text, where it is blocked."""
        host = str(address.addr[0])
        if is_blocked(host, allowed):
            return host
        # Detached, because libcurl closes it.
        descriptor = socket.socket(address.family, address.socktype | socket.SOCK_CLOEXEC, address.protocol).detach()
        # An older connection with this descriptor has been closed, or the number would not be free.
        self._opened = [other for other in self._opened if other != descriptor and _endpoints(other)]
        self._opened.append(descriptor)
        self._polls = {ends: polled for ends, polled in self._polls.items() if polled[0] != descriptor}
        return descriptor

    def is_silent(self, endpoints: Endpoints) -> bool:
        """Whether no bytes wait on a connection. A new one is silent."""
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
    """Shut a handle's connection down, because libcurl would use it again."""
    descriptor = handle.getinfo(pycurl.ACTIVESOCKET)
    if descriptor >= 0:
        # Borrowed: libcurl closes it.
        borrowed = socket.socket(fileno=descriptor)
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already
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
