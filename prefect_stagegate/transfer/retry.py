"""Trying again: the one place that does. Waits grow and are jittered, and each source has a budget."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from prefect_stagegate.errors import SourceBusy, SourceUnavailable, StagegateError
from prefect_stagegate.transfer.progress import TransferStats
from prefect_stagegate.transfer.stop import Stop
from prefect_stagegate.transfer.throttle import Throttle

TRIES = 6
"""How often one read is tried in all."""
FIRST_WAIT = 0.2
LONGEST_WAIT = 15.0
BUSY_FACTOR = 4
"""How much longer the waits are for a server that says it is too busy, and not for how long."""
LONGEST_RETRY_AFTER = 60.0
"""What a server gets at most of the time that it asks for."""
SUCCESSES = 10
"""Successful reads that give one retry back."""

T = TypeVar("T")


class Budget:
    """The retries that one source is granted, so that a source that is down ends a transfer soon.

    Args:
        retries: How many there are at first, and at most.
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
        if self._left < self._most:
            with self._lock:
                self._left = min(self._most, self._left + 1 / SUCCESSES)


class Retrier:
    """Decides about repeating the reads of one source. Safe to use from many threads.

    Args:
        retries: The source's budget.
        stop: Ends all waiting.
        stats: Told of retries and waits.
        throttle: The limits of the source's server; None where it has none.
    """

    def __init__(self, retries: int, stop: Stop, stats: TransferStats, throttle: Throttle | None = None) -> None:
        self._budget = Budget(retries)
        self.throttle = throttle
        self._stop = stop
        self._stats = stats
        self._quiet_until = 0.0

    def run(self, read: Callable[[], T], *, again: tuple[type[StagegateError], ...] = (SourceUnavailable,)) -> T:
        """Call `read` until it returns. Blocks.

        Args:
            read: Starts from nothing at each call.
            again: The errors after which it is worth while to call again.

        Raises:
            StagegateError: The last error, when it is another one, or the tries or the budget are used up.
        """
        attempt = 0
        while True:
            attempt += 1
            if seconds := self.quiet_seconds():
                self._sleep(seconds)
            try:
                result = self._limited(read)
            except again as error:
                delay = self.delay(attempt, error)
                if delay is None:
                    raise
                self._sleep(delay)
            else:
                self.succeeded()
                return result

    def delay(self, attempt: int, error: StagegateError) -> float | None:
        """Seconds after which a failed read is repeated; None when it is not.

        Args:
            attempt: Which try of this read failed, from 1.
            error: How.
        """
        if attempt >= TRIES or not error.retryable or not self._budget.take():
            return None
        self._stats.retried()
        seconds: float = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))  # noqa: S311
        if isinstance(error, SourceBusy):
            if requested := min(error.retry_after, LONGEST_RETRY_AFTER):
                # Nobody asks before that, and then not all at once.
                self._quiet_until = max(self._quiet_until, time.monotonic() + requested)
                seconds += requested
            else:
                seconds = min(LONGEST_WAIT, BUSY_FACTOR * seconds)
        return seconds

    def succeeded(self) -> None:
        """Count one successful read."""
        self._budget.give_back()

    def quiet_seconds(self) -> float:
        """How long the server wants to be left alone, with jitter; nearly always 0.0."""
        left = self._quiet_until - time.monotonic()
        return left + random.uniform(0, FIRST_WAIT) if left > 0 else 0.0  # noqa: S311

    def _limited(self, read: Callable[[], T]) -> T:
        if self.throttle is None:
            return read()
        with self.throttle.connection(self._stop):
            return read()

    def _sleep(self, seconds: float) -> None:
        self._stats.waited(seconds)
        self._stop.sleep(seconds)
