"""The threads that bring objects in: as many as keep the interpreter busy.

One thread at a time runs Python. One that waits for no server keeps the interpreter busy alone, and others would only
take its lock from it, at each of its system calls. Where threads mostly wait, each further one is of use. So one
begins; they are doubled when the interpreter was idle, and halved when it was busy. Where a source can be asked ahead,
a thread first asks for more objects before it takes the answers, which costs less than a second thread. Threads, and
what they have asked for beside what they bring in, are never more than may be in flight.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from itertools import count

LOOK_SECONDS = 0.02
"""How often it is looked how busy the interpreter was."""
FIRST, LAST = 32, 48
"""Small objects that a thread takes at once, at first and at most: it asks for all, and takes the answers in turn."""
LEAST = 4
"""Objects that each may take at once where there are as many threads as ask ahead."""
IDLE, BUSY = 0.8, 0.95
"""Below and above which share of the time that threads ran Python there are too few of them, and too many."""
WAITING = 0.25
"""Below which share there are too few of them, where they have asked for as much as they may ask for ahead."""


class Crew:
    """Threads that do the same, until nothing is left to do.

    Args:
        work: What each does: a loop that also ends when `is_superfluous` says so.
        most: How many there may be, and how many objects they may ask for together.
        ended: Called when the last one has ended.
    """

    def __init__(self, work: Callable[[], None], most: int, ended: Callable[[], None]) -> None:
        self._work, self._most, self._ended = work, most, ended
        self._ahead = FIRST
        self._context = contextvars.copy_context()
        self._numbers = count()
        self._lock = threading.Lock()
        self._members: set[threading.Thread] = set()
        self._wanted = 1
        self._complete = False
        self._asked: dict[threading.Thread, int] = {}
        self._spent: dict[threading.Thread, float] = {}
        self._spent_by_left = 0.0
        self._looked = self._seen = 0.0

    @property
    def size(self) -> int:
        """How many threads there are."""
        return len(self._members) or 1

    @property
    def ahead(self) -> int:
        """How many objects each thread may have asked for: never all, so that others can join one that stands still."""
        most, threads = self._most, max(self.size, self._wanted)
        return max(1, min(self._ahead, most - most // 4, most // threads))

    @property
    def crowded(self) -> bool:
        """Whether some are to end."""
        return len(self._members) > self._wanted

    def begin(self) -> None:
        """Start the first thread."""
        self._looked, self._seen = time.monotonic(), time.thread_time()
        with self._lock:
            self._start()

    def complete(self) -> None:
        """Have all threads that there may be, from now on."""
        if not self._complete:
            self._complete = True
            self._want(self._most)

    def spend(self) -> None:
        """Note what the calling thread has used of the processor. Each that runs Python for the crew says so often."""
        self._spent[threading.current_thread()] = time.thread_time()

    def reserve(self, count: int) -> int:
        """How many of so many objects the calling thread may ask for now. Each that runs `settle`s them afterwards."""
        with self._lock:
            room = self._most - max(self.size, self._wanted) - sum(self._asked.values())
            granted = max(min(count, room), 0)
            self._asked[threading.current_thread()] = self._asked.get(threading.current_thread(), 0) + granted
            return granted

    def settle(self, left: int) -> None:
        """Note how many of the objects that the calling thread asked for are still to be brought in."""
        with self._lock:
            self._asked[threading.current_thread()] = left
            self._hire()

    def look(self, *, needed: bool, asks_ahead: bool) -> None:
        """Have more in flight, if needed, or fewer threads, by how busy the interpreter was since the last look.

        Args:
            needed: Whether there is work for more.
            asks_ahead: Whether threads ask for objects ahead.
        """
        now = time.monotonic()
        if self._complete or now - self._looked < LOOK_SECONDS:
            return
        self.spend()
        spent = self._spent_by_left + sum(list(self._spent.values()))
        share = (spent - self._seen) / (now - self._looked)
        self._looked, self._seen = now, spent
        self.adjust(share, needed=needed, asks_ahead=asks_ahead)

    def adjust(self, share: float, *, needed: bool, asks_ahead: bool) -> None:
        """The same, for a share of the time."""
        if share > BUSY:
            self._want(max(self._wanted // 2, 1))
        elif needed and asks_ahead and share < IDLE and self._ahead < LAST:
            self._ahead = min(2 * self._ahead, LAST)
        elif needed and share < (WAITING if asks_ahead else IDLE):
            most = self._most // LEAST if asks_ahead else self._most
            self._want(max(min(2 * self._wanted, most), self._wanted))

    def is_superfluous(self) -> bool:
        """Whether the calling thread, one of the crew, is to end while others go on."""
        if len(self._members) <= self._wanted:
            return False
        with self._lock:
            if len(self._members) <= self._wanted:
                return False
            self._leave()
            return True

    def join(self, until: float) -> None:
        """Wait for all threads to end, but not longer than until a time of the monotonic clock."""
        for one in list(self._members):
            one.join(max(0.0, until - time.monotonic()))

    def _want(self, wanted: int) -> None:
        with self._lock:
            self._wanted = wanted
            self._hire()

    def _hire(self) -> None:
        """Start the threads that are wanted, as far as there is room for what they bring in."""
        asked = sum(self._asked.values())
        while self._members and len(self._members) < min(self._wanted, self._most - asked):
            self._start()

    def _start(self) -> None:
        one = thread(self._run, f"fetch-{next(self._numbers)}", self._context)
        one.start()
        self._members.add(one)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            with self._lock:
                last = self._leave() and not self._members
            if last:
                self._ended()

    def _leave(self) -> bool:
        """Let the calling thread be of the crew no more; False when it wasn't."""
        one = threading.current_thread()
        if one not in self._members:
            return False
        self._members.remove(one)
        self._asked.pop(one, None)
        self._spent_by_left += self._spent.pop(one, 0.0)
        return True


def thread(target: Callable[[], None], name: str, context: contextvars.Context) -> threading.Thread:
    """A thread in which the loggers and progress of a context work (Prefect's run context among them)."""
    return threading.Thread(target=context.copy().run, args=(target,), name=f"stagegate-{name}", daemon=True)
