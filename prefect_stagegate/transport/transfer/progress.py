"""What a transfer reports while it runs, the meter that adds it up over the threads, and the figures at the end."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from prefect_stagegate.cache.job_progress import JobProgress, Phase
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import PeerTraffic, Receipt
from prefect_stagegate.model.transfers import Tier

Side = Literal["network", "hashing", "disk", "waiting"]
WINDOW = 15.0
"""Seconds over which a speed is averaged."""
SAMPLE = 0.5
"""Seconds between two samples of it."""
MOST_BEGUN = 1024
"""Objects under way that are remembered, to show one of them."""


class Progress:
    """Called by several threads as a transfer goes on, about once for each chunk: each call should be short.

    A call whose method is not overridden does nothing.
    """

    def listed(self, objects: int, size: int) -> None:
        """Count objects that the sources listed, and the sum of their sizes in bytes."""

    def started(self, path: str) -> None:
        """Show the path of an object whose fetch begins. The engine calls it, in the thread that all requests share."""

    def moved(self, size: int) -> None:
        """Count bytes that came over the wire, or that an interrupted run had fetched."""

    def done(self, receipt: Receipt) -> None:
        """Count one object that is in the cache now."""

    def waiting(self, message: str) -> None:
        """Show that another process is waited for, which one and since when. Called about once a second."""


class Figures(NamedTuple):
    """What a worker process adds to the figures of its transfer."""

    seconds: dict[Side, float]
    places: dict[tuple[Tier, str], tuple[int, int]]
    retries: int
    resumed: int
    threads: set[object]


@dataclass(slots=True)
class TransferStats:
    """What a transfer did and where its time went. Seconds are summed over all threads."""

    objects: int = 0
    fetched: int = 0
    """Bytes that came over the wire."""
    resumed: int = 0
    """Bytes that an interrupted run had fetched, and that were verified."""
    reused: int = 0
    """Bytes that the cache had already."""
    dropped_replicas: dict[str, str] = field(default_factory=dict)
    """The replicas that were asked no further, and why."""
    retries: int = 0
    seconds: dict[Side, float] = field(
        default_factory=lambda: {"network": 0.0, "hashing": 0.0, "disk": 0.0, "waiting": 0.0}
    )
    """`network`: waiting for a source's bytes; `waiting`: between a failed try and the next."""
    wall: float = 0.0
    """Seconds from the start of the engine to the last sync."""
    places: dict[tuple[Tier, str], tuple[int, int]] = field(default_factory=dict)
    """Objects, and bytes over the wire, by where they came from."""
    failures: list[StagegateError] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic, repr=False)
    _threads: set[object] = field(default_factory=set, repr=False)
    """The threads that hashed or wrote."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def lap(self, side: Side, since: float) -> float:
        """Count the time of a thread that hashes or writes since a moment of `perf_counter`, and return the next."""
        now = time.perf_counter()
        with self._lock:
            self._threads.add(threading.get_ident())
            self.seconds[side] += now - since
        return now

    def count_stored(self, place: tuple[Tier, str], size: int, *, hashing: float = 0.0, disk: float = 0.0) -> None:
        """Count an object, its bytes that came from a place, and the seconds in which it was hashed and written."""
        with self._lock:
            if hashing:
                self._threads.add(threading.get_ident())
                self.seconds["hashing"] += hashing
                self.seconds["disk"] += disk
            objects, total = self.places.get(place, (0, 0))
            self.places[place] = (objects + 1, total + size)

    def start(self) -> None:
        """Measure `wall` from now on."""
        self._began = time.monotonic()

    def end(self) -> None:
        """Set `wall`."""
        self.wall = time.monotonic() - self._began

    @property
    def unbusy(self) -> float:
        """Seconds, over the threads that hash and write, in which they did neither: they had no bytes yet.

        `seconds["network"]` is no measure of that: reads overlap.
        """
        return max(0.0, self.wall * len(self._threads) - self.seconds["hashing"] - self.seconds["disk"])

    @property
    def processes(self) -> int:
        """The processes that hashed or wrote, this one included."""
        return 1 + len({thread[0] for thread in self._threads if isinstance(thread, tuple)})

    def add_seconds(self, side: Side, seconds: float) -> None:
        """Count seconds of other threads: of a sync, or of a back-off before a retry."""
        with self._lock:
            self.seconds[side] += seconds

    def resume(self, size: int) -> None:
        """Count bytes that an interrupted run had fetched."""
        with self._lock:
            self.resumed += size

    @property
    def from_replicas(self) -> dict[str, int]:
        """Of the fetched bytes, those that each replica sent, by its name."""
        return {name: size for (tier, name), (_, size) in self.places.items() if tier == "peer"}

    @property
    def replicas(self) -> tuple[PeerTraffic, ...]:
        """What each replica sent, and which of them failed; sorted by name."""
        sent = self.from_replicas
        names = sorted(sent.keys() | self.dropped_replicas.keys())
        return tuple(PeerTraffic(name, sent.get(name, 0), self.dropped_replicas.get(name, "")) for name in names)

    def taken(self) -> Figures | None:
        """The figures since the last call, for `add`; None where there are none."""
        with self._lock:
            threads: set[object] = {(os.getpid(), thread) for thread in self._threads}
            figures = Figures(dict(self.seconds), dict(self.places), self.retries, self.resumed, threads)
            self.seconds, self.places = dict.fromkeys(self.seconds, 0.0), {}
            self.retries = self.resumed = 0
        return figures if any(figures.seconds.values()) or figures.retries or figures.resumed else None

    def add(self, figures: Figures) -> None:
        """Add what a worker process did."""
        for side, seconds in figures.seconds.items():
            self.add_seconds(side, seconds)
        with self._lock:
            for place, (objects, size) in figures.places.items():
                before = self.places.get(place, (0, 0))
                self.places[place] = (before[0] + objects, before[1] + size)
            self.retries, self.resumed = self.retries + figures.retries, self.resumed + figures.resumed
            self._threads |= figures.threads

    def retried(self) -> None:
        """Count one retry."""
        with self._lock:
            self.retries += 1

    def count(self, receipt: Receipt) -> None:
        """Add one object that is in the cache."""
        self.objects += 1
        self.fetched += receipt.fetched
        if not receipt.fetched:
            self.reused += receipt.object.size
            if receipt.object.size:  # an empty object that was read is counted by then
                self.count_stored(("cache", ""), receipt.object.size)


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


@contextmanager
def repeating(
    action: Callable[[], object], seconds: float, *, grace: float = 1.0, last: bool = False
) -> Iterator[None]:
    """Call a function every `seconds` in a thread of its own while the block lasts.

    An OSError of the function ends the calls, and nothing else: what can't be written once is not tried again.

    Args:
        action: The function. It sees the caller's context.
        seconds: The time between two calls, and before the first.
        grace: Seconds that the end of the block waits for a call, at most.
        last: Whether it is called once more at the end of the block.
    """
    ended = threading.Event()

    def repeat() -> None:
        with suppress(OSError):
            while not ended.wait(seconds):
                action()
            if last:
                action()

    thread = threading.Thread(target=copy_context().run, args=(repeat,), name="stagegate-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(grace)
