"""Results of a transfer on their way from the engine's threads to the consumer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from prefect_stagegate.transport.transfer.context import Done
from prefect_stagegate.transport.transfer.stop import Stop

BACKLOG = 256
"""Results that wait, each with an open file, before no further read is started: a slow consumer slows the transfer."""
MANY = 128
"""Number of results at which the consumer is woken."""
FULL = 4 * BACKLOG
"""Number of results at which workers and the plan wait. Above `BACKLOG`, since reads under way add theirs, too."""
_PAUSE = 0.005


class Results:
    """Objects that are done. The consumer polls, because waking its thread for each object would cost too much.

    `added` is called after each result of a read, in the thread that adds it.
    """

    def __init__(self, stop: Stop, added: Callable[[], None]) -> None:
        self._stop, self._added = stop, added
        self._waiting: deque[Done] = deque()
        self._ready = threading.Event()
        self._closed = False

    def add(self, done: Done) -> None:
        """Hand a result to the consumer. From any thread; never blocks."""
        self._waiting.append(done)
        if len(self._waiting) >= MANY:
            self._ready.set()
        self._added()
        # After `close` nobody takes this result, which may hold a claim.
        self._drop_late()

    def add_reused(self, done: Done) -> None:
        """Hand over the result of an object that needed no read, once there is room. Not in the loop's thread."""
        # Looked at here first: most objects of a large plan are reused, and a call for each would show.
        if len(self._waiting) >= FULL:
            self.wait_for_room()
        self._waiting.append(done)

    def wait_for_room(self) -> None:
        """Block while far too many results wait. Not in the loop's thread."""
        while len(self._waiting) >= FULL and not self._stop:
            self._ready.set()
            time.sleep(_PAUSE)

    @property
    def is_full(self) -> bool:
        """Whether so many results wait that no further read should start."""
        return len(self._waiting) >= BACKLOG

    def take(self, most: int) -> list[Done]:
        """Up to `most` results, the oldest first."""
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    def wake(self) -> None:
        """End the consumer's wait."""
        self._ready.set()

    def wait(self, seconds: float) -> None:
        """Wait until many results are there or somebody wakes the consumer, at most `seconds`."""
        self._ready.wait(seconds)
        self._ready.clear()

    def close(self) -> None:
        """Take no more results. Later ones, of threads that were left behind, are dropped."""
        self._closed = True
        self._drop_late()

    def _drop_late(self) -> None:
        while self._closed and self._waiting:
            with suppress(IndexError):  # another thread took it
                if claim := self._waiting.popleft().claim:
                    claim.drop()
