"""A trap in place of a cloud's metadata service, and a server that redirects to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest

from prefect_stagegate.transport.http import request_policy as policy
from tests.support.http_servers import Handler, http_server

TRAP = "127.0.0.66"
REFUSED = "Refused to connect to|metadata addresses are blocked"
KEYS = {"key": "k", "secret": "s"}


def filled(value: Any, address: str) -> Any:
    if isinstance(value, dict):
        return {name: filled(item, address) for name, item in value.items()}
    return value.replace("{}", address) if isinstance(value, str) else value


@dataclass
class Trap:
    """What nobody may connect to."""

    port: int
    connections: list[Any] = field(default_factory=list)
    host: str = TRAP

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def trap_at(host: str) -> Iterator[Trap]:
    """Listen at an address, and hang up on whoever connects."""
    with socket.create_server((host, 0)) as listener:
        trap = Trap(listener.getsockname()[1], host=host)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, who = listener.accept()
                    trap.connections.append(who)
                    connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield trap
        # Whoever connected before this was accepted before it.
        with socket.create_connection((host, trap.port), timeout=5) as own:
            own.settimeout(5)
            assert own.recv(1) == b""
            assert trap.connections.pop() == own.getsockname()
    assert trap.connections == []


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    monkeypatch.setattr(policy, "BLOCKED_NETWORKS", (*policy.BLOCKED_NETWORKS, ip_network(f"{TRAP}/32")))
    yield from trap_at(TRAP)


@pytest.fixture
def redirector(trap: Trap) -> Iterator[str]:
    """An allowed server that redirects whatever it is asked to the trap."""

    class Redirecting(Handler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.read_body()
            self.respond(307, headers={"Location": f"{trap.url}/latest/meta-data/"})

        do_GET = do_HEAD = do_POST = do_PUT = do_PROPFIND = answer

    with http_server(Redirecting) as url:
        yield url


@pytest.fixture
def rebound(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    """A trap at localhost, for which DNS names another address at the first look than when the connection is made."""
    monkeypatch.setattr(policy, "BLOCKED_NETWORKS", (ip_network("127.0.0.1/32"), ip_network("::1/128")))
    resolve = policy.addresses

    def rebind(host: str, flags: int = 0) -> list[str]:
        return ["203.0.113.9"] if host == "localhost" else resolve(host, flags)

    monkeypatch.setattr(policy, "addresses", rebind)
    yield from trap_at("127.0.0.1")


@pytest.fixture
def loopback_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "BLOCKED_NETWORKS", (*policy.BLOCKED_NETWORKS, ip_network("127.0.0.1/32")))
