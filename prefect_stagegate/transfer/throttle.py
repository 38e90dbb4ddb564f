"""How much all transfers of this process together may ask of one server: bytes a second, and reads at a time.

Whoever sets no limit pays for none. Other processes and nodes have limits of their own: what all of them share is a
concurrency limit of the Prefect server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from prefect_stagegate.transfer.limits import Limits
from prefect_stagegate.transfer.stop import Stop

STEADY = 1 << 18
"""Bytes a second that each read gets at least, however low the bandwidth: servers hang up on readers that crawl."""
BURST = 0.1
"""Seconds of the bandwidth that may be used at once after a pause."""
_TICK = 0.1

T = TypeVar("T")


class Throttle:
    """The limits of one server.

    Args:
        bandwidth: Bytes a second; None for as many as come.
        connections: Reads at a time; None for as many as are asked for. A low bandwidth makes them fewer.
    """

    def __init__(self, bandwidth: int | None, connections: int | None) -> None:
        self._bandwidth = bandwidth
        bounds = [count for count in (connections, bandwidth and max(1, bandwidth // STEADY)) if count]
        self._slots = threading.Semaphore(min(bounds)) if bounds else None
        self._paid_until = 0.0
        self._lock = threading.Lock()

    def run(self, read: Callable[[], T], stop: Stop) -> T:
        """Call `read` when a connection is free."""
        if self._slots is None:
            return read()
        while not self._slots.acquire(timeout=_TICK):
            stop.check()
        try:
            return read()
        finally:
            self._slots.release()

    def spend(self, size: int, stop: Stop) -> None:
        """Wait until so many bytes, which came, are paid for."""
        if self._bandwidth is None:
            return
        with self._lock:
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now - BURST) + size / self._bandwidth
            left = self._paid_until - now
        if left > 0:
            stop.sleep(left)


_throttles: dict[tuple[str, int | None, int | None], Throttle] = {}
_lock = threading.Lock()


def throttle_of(server: str, limits: Limits) -> Throttle | None:
    """The throttle that all transfers of this process share for a server; None when there is no limit."""
    if limits.bandwidth is None and limits.connections is None:
        return None
    with _lock:
        wanted = (server, limits.bandwidth, limits.connections)
        return _throttles.setdefault(wanted, Throttle(limits.bandwidth, limits.connections))
