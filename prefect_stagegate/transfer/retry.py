"""Trying again: the one place that does. Waits grow and are jittered, and each source has a budget."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from prefect_stagegate.errors import Cancelled, StagegateError
from prefect_stagegate.transfer.progress import TransferStats

TRIES = 6
"""How often one read is tried in all."""
FIRST_WAIT = 0.2
LONGEST_WAIT = 15.0
SUCCESSES = 10
"""Successful reads that give one retry back."""

T = TypeVar("T")


class Stop:
    """Whether to stop: because the caller says so, or because the transfer has come to its end."""

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
        """Whether the caller said so."""
        return self._cancel is not None and self._cancel.is_set()

    def check(self) -> None:
        """Raise `Cancelled` when it is time to stop."""
        if self:
            raise Cancelled("The transfer was stopped", hint="Run it again: what was fetched stays.")

    def sleep(self, seconds: float) -> None:
        """Sleep, and raise `Cancelled` soon when it is time to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._ended.wait(min(left, 0.1))
            self.check()


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
    """Repeats reads of one source while its errors say that this may help."""

    def __init__(self, retries: int, stop: Stop, stats: TransferStats) -> None:
        self._budget = Budget(retries)
        self._stop = stop
        self._stats = stats

    def run(self, read: Callable[[], T], *, again: tuple[type[StagegateError], ...]) -> T:
        """Call `read` until it returns.

        Args:
            read: Starts from nothing at each call.
            again: The errors after which it is worth while to call again.

        Raises:
            StagegateError: The last error, when it is another one, or the tries or the budget are used up.
        """
        for attempt in range(1, TRIES + 1):
            try:
                result = read()
            except again as error:
                if attempt == TRIES or not error.retryable or not self._budget.take():
                    raise
                self._wait(attempt)
            else:
                self._budget.give_back()
                return result
        raise AssertionError("unreachable")

    def _wait(self, attempt: int) -> None:
        seconds = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))  # noqa: S311
        self._stats.retried(seconds)
        self._stop.sleep(seconds)
