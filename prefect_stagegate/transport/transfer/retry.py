"""Retries of reads: back-off grows exponentially with jitter, and each source has a budget.

One server's limits are shared by all transfers of this process: bytes a second, and requests at a time. Without limits
there is no throttle. Other processes and nodes have throttles of their own; a concurrency limit of the Prefect server
is what all of them can share.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from prefect_stagegate.errors import Cancelled, SourceBusy, SourceUnavailable, StagegateError
from prefect_stagegate.transport.transfer.progress import TransferStats

STEADY = 1 << 18
"""Bytes a second that each read gets at least, since servers hang up on slower ones: a low bandwidth allows fewer."""
BURST = 0.1
"""Seconds of the bandwidth that may be used at once after a pause."""
SLACK = 0.02
"""Waits of up to so many seconds are left out: they would end late."""
_TICK = 0.1
TRIES = 6
"""Tries of one read, the first included."""
FIRST_WAIT = 0.2
LONGEST_WAIT = 15.0
BUSY_FACTOR = 4
"""Factor of the back-off for a busy server that sends no Retry-After."""
LONGEST_RETRY_AFTER = 60.0
"""Seconds of a server's Retry-After that are heeded at most."""
SUCCESSES = 10
"""Successful reads that give one retry back."""
T = TypeVar("T")


class Stop:
    """Whether to stop: the caller cancelled the transfer, or the transfer has ended."""

    def __init__(self, cancel: threading.Event | None) -> None:
        self._cancel = cancel
        self._ended = threading.Event()

    def end(self) -> None:
        """Stop everything that belongs to the transfer."""
        self._ended.set()

    def __bool__(self) -> bool:
        return self._ended.is_set() or self.cancelled

    @property
    def cancelled(self) -> bool:
        """Whether the caller cancelled the transfer."""
        return self._cancel is not None and self._cancel.is_set()

    def check(self) -> None:
        """Raise `Cancelled` when it is time to stop."""
        if self:
            raise Cancelled("The transfer was stopped", hint="Run it again: what was fetched stays.")

    def sleep(self, seconds: float) -> None:
        """Sleep; raises `Cancelled` within 0.1 seconds when it is time to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._ended.wait(min(left, 0.1))
            self.check()


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


def throttle_of(server: str, bandwidth: int | None, connections: int | None) -> Throttle | None:
    """The throttle that all transfers of this process share for a server; None when there is no limit."""
    if bandwidth is None and connections is None:
        return None
    with _lock:
        return _throttles.setdefault((server, bandwidth, connections), Throttle(bandwidth, connections))


class Budget:
    """The retries that one source has left, so that a transfer from a source that is down ends soon.

    Args:
        retries: The number at the beginning, which is also the most.
    """

    def __init__(self, retries: int) -> None:
        self._most = float(retries)
        self._left = float(retries)
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one retry; False when none is left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def give_back(self) -> None:
        """Count one success."""
        # Without the lock at first: the budget is nearly always full.
        if self._left < self._most:
            with self._lock:
                self._left = min(self._most, self._left + 1 / SUCCESSES)


class Retrier:
    """Decides whether and when reads of one source are retried. Safe to use from many threads.

    `retries` is the budget of the source; `throttle` has the limits of its server, where it has any.
    """

    def __init__(self, retries: int, stop: Stop, stats: TransferStats, throttle: Throttle | None = None) -> None:
        self._budget = Budget(retries)
        self.throttle = throttle
        self._stop = stop
        self._stats = stats
        self._quiet_until = 0.0
        self._new_quiet = 0.0

    def run(self, read: Callable[[], T], *, again: tuple[type[StagegateError], ...] = (SourceUnavailable,)) -> T:
        """Call `read` until it returns. Blocks.

        `read` starts from nothing at each call, and is called again after an error of `again`.

        Raises:
            StagegateError: The last error: one of another kind, or the tries or the budget are used up.
        """
        attempt = 0
        while True:
            attempt += 1
            # Before each try, too: another read of this source may have been refused meanwhile.
            if seconds := self.quiet_seconds():
                self._sleep(seconds)
            try:
                with self.throttle.connection(self._stop) if self.throttle else nullcontext():
                    result = read()
            except again as error:
                delay = self.delay(attempt, error)
                if delay is None:
                    raise
                self._sleep(delay)
            else:
                self.succeeded()
                return result

    def delay(self, attempt: int, error: StagegateError) -> float | None:
        """Seconds after which a failed read is retried; None when it is not.

        `attempt` is the number of the try that failed, from 1.
        """
        # The budget comes last: a read that is not retried costs nothing of it.
        if attempt >= TRIES or not error.retryable or not self._budget.take():
            return None
        self._stats.retried()
        # Jitter spreads the retries of reads that failed together.
        seconds: float = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))  # noqa: S311
        if isinstance(error, SourceBusy):
            if requested := min(error.retry_after, LONGEST_RETRY_AFTER):
                # No request goes to the server before that; the jitter spreads those that come then.
                self.keep_quiet(requested)
                self._new_quiet = requested
                seconds += requested
            else:
                seconds = min(LONGEST_WAIT, BUSY_FACTOR * seconds)
        return seconds

    def succeeded(self) -> None:
        """Count one successful read."""
        self._budget.give_back()

    def quiet_seconds(self) -> float:
        """Seconds that are left of the server's Retry-After, with jitter; nearly always 0.0."""
        left = self._quiet_until - time.monotonic()
        return left + random.uniform(0, FIRST_WAIT) if left > 0 else 0.0  # noqa: S311

    def keep_quiet(self, seconds: float) -> None:
        """Send no request for so many seconds from now."""
        self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    def new_quiet(self) -> float:
        """The seconds that the server asked for since the last call; nearly always 0.0."""
        seconds, self._new_quiet = self._new_quiet, 0.0
        return seconds

    def _sleep(self, seconds: float) -> None:
        self._stats.add_seconds("waiting", seconds)
        self._stop.sleep(seconds)
