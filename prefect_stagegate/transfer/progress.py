"""What a transfer tells while it runs, and what it knows at its end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal, Protocol

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import Receipt


class Progress(Protocol):
    """Told what happens, from several threads, about once a chunk: each call should be short."""

    def listed(self, objects: int, size: int) -> None:
        """So many more objects, of so many bytes together, were found at the sources."""

    def moved(self, size: int) -> None:
        """So many more bytes came over the wire, or had come and were read back."""

    def done(self, receipt: Receipt) -> None:
        """One more object is in the cache."""

    def waiting(self, message: str) -> None:
        """Another process brings in what is needed, about once a second: for whom it is waited, and since when."""


class Silent:
    """Progress that nobody watches."""

    def listed(self, objects: int, size: int) -> None:
        """Do nothing."""

    def moved(self, size: int) -> None:
        """Do nothing."""

    def done(self, receipt: Receipt) -> None:
        """Do nothing."""

    def waiting(self, message: str) -> None:
        """Do nothing."""


Side = Literal["network", "hashing", "disk", "waiting"]


class Stopwatch:
    """A stop watch: each lap's time counts for one side of the work."""

    def __init__(self) -> None:
        self.seconds: dict[Side, float] = {}
        self._mark = time.perf_counter()

    def lap(self, side: Side) -> None:
        """Count the time since the last lap for `side`."""
        now = time.perf_counter()
        self.seconds[side] = self.seconds.get(side, 0.0) + now - self._mark
        self._mark = now


@dataclass(slots=True)
class TransferStats:
    """What a transfer did and where its time went. Seconds are summed over all threads."""

    objects: int = 0
    fetched: int = 0
    """Bytes that came over the wire."""
    resumed: int = 0
    """Bytes that an interrupted run had fetched, and that were found right."""
    reused: int = 0
    """Bytes that the cache had."""
    retries: int = 0
    seconds: dict[Side, float] = field(
        default_factory=lambda: {"network": 0.0, "hashing": 0.0, "disk": 0.0, "waiting": 0.0}
    )
    """`network`: waiting for bytes of a source; `waiting`: between a failed try and the next."""
    failures: list[StagegateError] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def spend(self, watch: Stopwatch) -> None:
        """Add to the times; called by many threads."""
        with self._lock:
            for side, seconds in watch.seconds.items():
                self.seconds[side] += seconds

    def resume(self, size: int) -> None:
        """Count bytes that were found on the disk."""
        with self._lock:
            self.resumed += size

    def retried(self) -> None:
        """Count one retry."""
        with self._lock:
            self.retries += 1

    def waited(self, seconds: float) -> None:
        """Count the seconds before a retry, or for which a server wants to be left alone."""
        with self._lock:
            self.seconds["waiting"] += seconds

    def count(self, receipt: Receipt) -> None:
        """Add one object that is in the cache."""
        self.objects += 1
        self.fetched += receipt.fetched
        if not receipt.fetched:
            self.reused += receipt.object.size

    def slowest(self) -> Side:
        """The side that took most of the time."""
        return max(self.seconds, key=lambda side: self.seconds[side])
