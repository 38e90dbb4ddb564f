"""A pool of threads of a fixed size, which never keeps its process from ending."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable


class WorkerPool:
    """Threads that call what they are given, in turn. They start as they are needed.

    `concurrent.futures` waits for its threads at the end of a process, and one that a silent server holds never ends.

    Args:
        name: Of the threads.
        size: How many there are at most.
        failed: Called with what a call raised.
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
        """Have a thread call it."""
        with self._lock:
            self.busy += 1
            if len(self._threads) < min(self.size, self.busy):
                name = f"stagegate-{self._name}-{len(self._threads)}"
                thread = threading.Thread(
                    target=self._context.copy().run, args=(self._work,), name=name, daemon=True
                )  # in which the loggers and progress of the caller work
                self._threads.append(thread)
                thread.start()
        self._calls.put(call)

    def stop(self) -> None:
        """Have the threads end after what they do now."""
        for _ in self._threads:
            self._calls.put(None)

    def join(self, until: float) -> None:
        """Wait for the threads, but not longer than until a time of the monotonic clock."""
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
