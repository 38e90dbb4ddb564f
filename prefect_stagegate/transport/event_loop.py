"""One thread that schedules a transfer's work: it calls functions soon or later, and asks for further work."""

from __future__ import annotations

import contextvars
import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

log = logging.getLogger(__name__)


class EventLoop:
    """Runs functions in one thread. They must not block. `http.Loop` also sends requests.

    Args:
        name: Of its thread.
        room: Most exchanges under way at a time.
        supply: Called for further exchanges while there is room; after it gave none, only once `feed` was called.
        turned: Called after each turn.
        ended: Called at the end, in the loop's thread, when no exchange is under way any more.
    """

    def __init__(
        self,
        name: str,
        *,
        room: int,
        supply: Callable[[int], Sequence[Any]] | None = None,
        turned: Callable[[], None] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.room, self._supply, self._turned, self._ended = room, supply, turned, ended
        self._woken = threading.Event()
        self._calls: deque[Callable[[], object]] = deque()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._hungry = True
        self._stopped = False
        self._over = False
        self.failure: BaseException | None = None
        """The exception that ended the loop: a defect of a function that it calls."""
        # In the caller's context, which loggers and progress need.
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(self._run,), name=f"stagegate-{name}", daemon=True)

    def is_here(self) -> bool:
        """Whether the caller's thread is the loop's."""
        return threading.get_ident() == self.thread.ident

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def stop(self) -> None:
        """End every exchange, without its `done`, and then the thread. From any thread."""
        self._stopped = True
        self._wake_up()

    def call(self, function: Callable[[], object]) -> None:
        """Have the loop's thread call a function soon; after its end, the caller's thread does. From any thread."""
        # Before the look at `_over`: either the ending loop finds the function, or this thread calls it.
        self._calls.append(function)
        if self._over:
            self._run_calls()
        else:
            self._wake_up()

    def feed(self) -> None:
        """Have the loop call `supply` again. From any thread."""
        if not self._hungry:
            self._hungry = True
            self._wake_up()

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function after so many seconds."""
        # The number comes before the function, because functions of one moment can't be compared.
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), function))

    def received_so_far(self) -> int:
        """Received bytes of bodies, those of failed requests included."""
        return 0

    def _wake_up(self) -> None:
        if not self.is_here():
            self._woken.set()

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._turn()
        except BaseException as error:
            self.failure = error
            log.debug("The loop has ended", exc_info=True)
        finally:
            try:
                self._end()
            finally:
                if self._ended:
                    self._ended()

    def _turn(self) -> None:
        while self._supply and self._hungry:
            self._hungry = False  # before the call: `feed` may be called during it
            self._supply(self.room)
        self._woken.wait(self._timeout())
        self._woken.clear()
        self._run_later()
        self._run_calls()
        if self._turned:
            self._turned()

    def _timeout(self) -> float | None:
        """Seconds until the next function is due; None for none."""
        if self._calls:  # of the loop's own thread, which wakes nothing
            return 0.0
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def _run_later(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()

    def _run_calls(self) -> None:
        while self._calls:
            try:
                function = self._calls.popleft()
            except IndexError:  # another thread took it, after the loop's end
                return
            function()

    def _end(self) -> None:
        # Before the last calls, so that a later `call` runs its function itself.
        self._over = True
        self._run_calls()
