"""Adds up a transfer's progress over its threads: how much is done, how fast it goes, and how long it will take."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from prefect_stagegate.cache.job_progress import JobProgress, Phase
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.model import Receipt
from prefect_stagegate.transport.transfer.progress import Progress, TransferStats

WINDOW = 15.0
"""Seconds over which a speed is averaged."""
SAMPLE = 0.5
"""Seconds between two samples of it."""
MOST_BEGUN = 1024
"""Objects under way that are remembered, to show one of them."""
T = TypeVar("T")


class Speed:
    """How fast a count grows, over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque([(time.monotonic(), 0.0)])

    def rate(self, count: float) -> float:
        """The growth a second up to `count`, which is the count now."""
        at = time.monotonic()
        if at - self._samples[-1][0] >= SAMPLE:
            self._samples.append((at, count))
        # One sample that is older stays, so that the window is always covered.
        while len(self._samples) > 1 and at - self._samples[1][0] >= WINDOW:
            self._samples.popleft()
        since, before = self._samples[0]
        return max(0.0, count - before) / (at - since) if at > since else 0.0


def seconds_left(rest: float, rate: float) -> float | None:
    """The seconds that the rest takes at a rate; None where that is unknown."""
    return rest / rate if rate > 0 else None


class Meter(Progress):
    """The progress of a transfer that others look at while it runs. Passes each call on to another progress."""

    def __init__(self, progress: Progress | None = None, phase: Phase = Phase.LISTING) -> None:
        self._next = progress or Progress()
        self._lock = threading.Lock()
        self.enter(phase)
        self._objects = self._objects_done = 0
        self._bytes = self._moved = self._reused = 0
        self._wait = ""
        self._begun: OrderedDict[str, None] = OrderedDict()
        """The objects that were begun and are not done, as far as they are remembered."""
        self.stats = TransferStats()
        """The figures of the transfer, by which the bottleneck is found."""
        self._moving, self._sides = Speed(), {side: Speed() for side in self.stats.seconds}

    @classmethod
    def of(cls, progress: Progress | None, phase: Phase = Phase.LISTING) -> Meter:
        """The caller's own meter, in a phase; or one that passes each call on to another progress."""
        if isinstance(progress, Meter):
            progress.enter(phase)
            return progress
        return cls(progress, phase)

    def listed(self, objects: int, size: int) -> None:
        """Add objects that a source lists, and their bytes."""
        with self._lock:
            self._objects += objects
            self._bytes += size
        self._next.listed(objects, size)

    def started(self, path: str) -> None:
        """Note an object whose fetch begins."""
        with self._lock:
            self._begun[path] = None
            self._begun.move_to_end(path)
            if len(self._begun) > MOST_BEGUN:  # objects that failed are never done
                self._begun.popitem(last=False)
        self._next.started(path)

    def moved(self, size: int) -> None:
        """Add bytes that came over the wire."""
        with self._lock:
            self._moved += size
            self._wait = ""
        self._next.moved(size)

    def done(self, receipt: Receipt) -> None:
        """Add an object that is in the cache."""
        with self._lock:
            self._objects_done += 1
            self._begun.pop(receipt.path, None)
            self._wait = ""
            if not receipt.fetched:
                self._reused += receipt.object.size
        self._next.done(receipt)

    def waiting(self, message: str) -> None:
        """Note for whom the transfer waits."""
        self._wait = message
        self._next.waiting(message)

    def enter(self, phase: Phase) -> None:
        """Note that a phase of the job begins."""
        self._phase = phase

    def until(self, items: Iterable[T], phase: Phase) -> Iterator[T]:
        """The items; when they have ended, the next phase begins."""
        yield from items
        self.enter(phase)

    def snapshot(self) -> JobProgress:
        """What is done now."""
        with self._lock:
            objects, done = self._objects, self._objects_done
            size, moved, reused = self._bytes, self._moved, self._reused
            newest = next(reversed(self._begun), "")
            rate, bottleneck = self._moving.rate(moved), self._bottleneck()
        return JobProgress(
            self._phase,
            objects,
            done,
            size,
            moved,
            reused,
            rate,
            # While a listing goes on, nobody knows how much is to come.
            None if self._phase is Phase.LISTING else seconds_left(max(0, size - moved - reused), rate),
            newest,
            self._wait,
            bottleneck,
            stamp(now()),
        )

    def _bottleneck(self) -> str:
        """The side of the work that took most of the threads' time lately; empty where none took any."""
        times = {side: speed.rate(self.stats.seconds[side]) for side, speed in self._sides.items()}
        slowest = max(times, key=lambda side: times[side])
        return slowest if times[slowest] > 0 else ""
