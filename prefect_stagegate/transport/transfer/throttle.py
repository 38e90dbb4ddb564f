"""Limits of one server that all transfers of this process share: bytes a second, and requests at a time.

Without limits there is no throttle. Other processes and nodes have throttles of their own; a concurrency limit of the
Prefect server is what all of them can share.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect_stagegate.transport.transfer.limits import Limits
from prefect_stagegate.transport.transfer.stop import Stop

STEADY = 1 << 18
"""Bytes a second that each read gets at least, since servers hang up on slower ones: a low bandwidth allows fewer."""
BURST = 0.1
"""Seconds of the bandwidth that may be used at once after a pause."""
SLACK = 0.02
"""Waits of up to so many seconds are left out: they would end late."""
_TICK = 0.1


class Throttle:
    """The limits of one server. Safe to use from many threads.

    Args:
        bandwidth: Bytes a second; None for as many as come.
        connections: Requests at a time; None for no limit. A low bandwidth lowers it.
    """

    def __init__(self, bandwidth: int | None, connections: int | None) -> None:
        self._bandwidth = bandwidth
        bounds = [count for count in (connections, bandwidth and max(1, bandwidth // STEADY)) if count]
        self._slots = threading.Semaphore(min(bounds)) if bounds else None
        self._paid_until = 0.0
        self._lock = threading.Lock()

    def try_acquire(self) -> bool:
        """Take a connection, if one is free; `release` gives it back."""
        return self._slots is None or self._slots.acquire(blocking=False)

    def release(self) -> None:
        """Give a connection back."""
        if self._slots:
            self._slots.release()

    @contextmanager
    def connection(self, stop: Stop) -> Iterator[None]:
        """Wait for a connection, and hold it in the block."""
        # Polled, because a thread that waits for a semaphore would not notice the stop.
        while not self.try_acquire():
            stop.sleep(_TICK)
        try:
            yield
        finally:
            self.release()

    def take(self, count: int) -> None:
        """Count received bytes."""
        if self._bandwidth is not None:
            with self._lock:
                # A pause saves up no more than the burst.
                self._paid_until = max(self._paid_until, time.monotonic() - BURST) + count / self._bandwidth

    def wait_seconds(self) -> float:
        """Seconds until more bytes may be received; 0.0 for now."""
        left = self._paid_until - time.monotonic()
        return left if left > SLACK else 0.0

    def spend(self, count: int, stop: Stop) -> None:
        """Count received bytes, and wait until the bandwidth allows more."""
        self.take(count)
        if left := self.wait_seconds():
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
