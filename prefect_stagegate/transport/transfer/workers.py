"""A pool of threads of a fixed size, which never keeps its process from ending."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable


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
