"""Who does what next: the parts of open objects first, then the next planned object, then those that others claimed.

The plan is read a little ahead, so that copying starts while listing goes on and a slow listing is not felt.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from prefect_stagegate.transfer.buffers import Buffers
from prefect_stagegate.transfer.job import Job
from prefect_stagegate.transfer.parts import Part, Parted
from prefect_stagegate.transfer.stop import Stop

AHEAD = 2048
"""Planned objects that wait at most."""
CLAIMED_SECONDS = 0.1
"""How long an object that somebody else brings in is left alone before it is looked at again."""
TURN = 4
"""Of its share, a thread brings in one of so many parts at a time before it takes more."""
SPREAD = 8
"""Large objects that are open at the same time while buffers are free."""
_TICK = 0.2

Work = Part | Job | list[Job]
"""What a thread does next: a part of an open object, a large object to open, or some small ones in turn."""


class Share(NamedTuple):
    """How the small objects of a source are shared."""

    threads: int
    """Among how many threads."""
    most: int
    """How many one of them takes at most."""


class Schedule:
    """The work that is left, shared by all threads of one transfer.

    Args:
        buffers: For the parts of large objects.
        small: Objects of up to so many bytes take no buffer.
        share: Tells how objects like a small one are shared.
        stop: Ends all waiting.
    """

    def __init__(self, buffers: Buffers, small: int, share: Callable[[Job], Share], stop: Stop) -> None:
        self._buffers, self._small, self._share, self._stop = buffers, small, share, stop
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._jobs: deque[Job] = deque()
        self._claimed: deque[tuple[float, Job]] = deque()
        self._open: list[Parted] = []
        self._opening = 0
        self._busy = 0
        self._complete = False
        self.closed = False
        """Whether no further objects are started."""

    @property
    def waiting(self) -> bool:
        """Whether planned objects wait for a thread."""
        return bool(self._jobs)

    def add(self, job: Job) -> bool:
        """Add a planned object; waits while enough are there. False when no further ones are started."""
        with self._changed:
            while len(self._jobs) >= AHEAD and not (self._stop or self.closed):
                self._room.wait(_TICK)
            if self.closed:
                return False
            self._jobs.append(job)
            self._changed.notify()
            return True

    def again(self, job: Job) -> None:
        """Add an object that is to be tried in another way."""
        with self._changed:
            if not self.closed:
                self._jobs.appendleft(job)
                self._changed.notify()

    def later(self, job: Job) -> None:
        """Add an object that somebody else brings in now."""
        with self._changed:
            if not self.closed:
                self._claimed.append((time.monotonic() + CLAIMED_SECONDS, job))

    def complete(self) -> None:
        """Nothing more is planned."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def close(self) -> None:
        """Start no further objects; those that are at work end."""
        with self._changed:
            self.closed = True
            self._jobs.clear()
            self._claimed.clear()
            self._changed.notify_all()

    def opened(self, parted: Parted | None) -> None:
        """A large object was opened, or could not be."""
        with self._changed:
            self._opening -= 1
            if parted:
                self._open.append(parted)
            self._changed.notify_all()

    def ended(self, parted: Parted) -> None:
        """A large object is done or abandoned."""
        with self._changed:
            if parted in self._open:
                self._open.remove(parted)

    def left(self) -> list[Parted]:
        """The large objects that are open, and no longer so. Nothing is started after it."""
        with self._changed:
            left, self._open = self._open, []
            return left

    def next(self) -> Work | None:
        """The next thing to do, waiting for it if need be; None at the end. `rest` must follow when it is done."""
        with self._changed:
            while not self._stop:
                if (work := self._first() or self._part() or self._some()) is not None:
                    self._busy += 1
                    return work
                if self._complete and not (self._busy or self._jobs or self._claimed):
                    break
                self._changed.wait(_TICK)
            self._changed.notify_all()
            return None

    def more(self, left: int) -> list[Job]:
        """Small objects for a thread with so many left; none while that is most of its share, or others need them."""
        with self._changed:
            if self._stop or self._open or not self._jobs or self.is_large(self._jobs[0]):
                return []
            share = self._share(self._jobs[0])
            room = share.most - left
            if room < max(share.most // TURN, 1) or len(self._jobs) < share.threads:
                return []
            return self._run(share._replace(most=room))

    def rest(self) -> None:
        """The work that `next` gave is done."""
        with self._changed:
            self._busy -= 1
            if self._open or self._complete:
                self._changed.notify()

    def is_large(self, job: Job) -> bool:
        """Whether the object is read in parts: a server that knows no ranges would send the whole for each."""
        return job.planned.object.size > self._small and job.source.ranges

    def _first(self) -> Job | None:
        """A large object while few are open: parts of several come in turn more often than many of one."""
        if self._jobs and self.is_large(self._jobs[0]) and len(self._open) + self._opening < SPREAD:
            return self._large()
        return None

    def _part(self) -> Part | None:
        for parted in sorted(self._open, key=lambda parted: parted.users):
            if (part := parted.next_part()) is not None:
                return part
        return None

    def _some(self) -> Job | list[Job] | None:
        if not self._jobs and self._claimed and self._claimed[0][0] <= time.monotonic():
            self._jobs.append(self._claimed.popleft()[1])
        if self._jobs:
            return self._large() if self.is_large(self._jobs[0]) else self._run(self._share(self._jobs[0]))
        return None

    def _large(self) -> Job | None:
        if self._buffers.available <= self._opening:
            return None
        self._opening += 1
        return self._taken()

    def _run(self, share: Share) -> list[Job]:
        """Some small objects of one source: fewer when few wait, so that the last ones are spread over all threads."""
        most = min(share.most, len(self._jobs) // share.threads)
        run = [self._taken()]
        while len(run) < most and self._jobs[0].source is run[0].source and not self.is_large(self._jobs[0]):
            run.append(self._taken())
        return run

    def _taken(self) -> Job:
        if len(self._jobs) == AHEAD // 2:
            self._room.notify()
        return self._jobs.popleft()
