"""A flag that stops a transfer, and sleeping that ends when it is set."""

from __future__ import annotations

import threading
import time

from prefect_stagegate.errors import Cancelled


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
