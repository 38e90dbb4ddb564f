"""The threads of a transfer: pools of a fixed size, and the queue of the results that they hand to the consumer."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from prefect_stagegate.transport.transfer.context import Done
from prefect_stagegate.transport.transfer.retry import Stop

BACKLOG = 256
"""Results that wait, each with an open file, before no further read is started: a slow consumer slows the transfer."""
MANY = 128
"""Number of results at which the consumer is woken."""
FULL = 4 * BACKLOG
"""Number of results at which workers and the plan wait. Above `BACKLOG`, since reads under way add theirs, too."""
_PAUSE = 0.005


class WorkerPool:
    """Threads that run the submitted calls in order. They start as they are needed.

    A pool of `concurrent.futures` would wait for its threads when the process ends, and a thread whose server is silent
    never ends.

    `failed` is called with the exception of a call that failed.
    """

    def __init__(self, name: str, size: int, failed: Callable[[BaseException], object]) -> None:
        self._name, self.size, self._failed = name, size, failed
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._context = contextvars.copy_context()
        self.busy = 0
        """Calls that were submitted and have not ended."""
        self._lock = threading.Lock()

    def submit(self, call: Callable[[], object]) -> None:
        """Have a thread run `call`."""
        with self._lock:
            self.busy += 1
            # As many threads as there are calls, up to the bound: most sources need few.
            if len(self._threads) < min(self.size, self.busy):
                name = f"stagegate-{self._name}-{len(self._threads)}"
                # In the caller's context: loggers and progress need it.
                thread = threading.Thread(target=self._context.copy().run, args=(self._work,), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._calls.put(call)

    def stop(self) -> None:
        """Have the threads end after the calls that were submitted."""
        for _ in self._threads:
            self._calls.put(None)

    def join(self, until: float) -> None:
        """Wait for the threads until a time of the monotonic clock at most."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
                self._failed(error)
            finally:
                with self._lock:
                    self.busy -= 1


class Results:
    """Objects that are done. The consumer polls, because waking its thread for each object would cost too much.

    `added` is called with the number of results of reads after each was added, in the thread that adds them.
    """

    def __init__(self, stop: Stop, added: Callable[[int], None]) -> None:
        self._stop, self._added = stop, added
        self._waiting: deque[Done] = deque()
        self._ready = threading.Event()
        self._closed = False

    def add(self, done: Done) -> None:
        """Hand a result to the consumer. From any thread; never blocks."""
        self._waiting.append(done)
        if len(self._waiting) >= MANY:
            self._ready.set()
        self._added(1)
        # After `close` nobody takes this result, which may hold a claim.
        self._drop_late()

    def add_all(self, done: Sequence[Done]) -> None:
        """Hand over the results of another process. From any thread."""
        self._waiting.extend(done)
        self._ready.set()
        self._added(len(done))
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
