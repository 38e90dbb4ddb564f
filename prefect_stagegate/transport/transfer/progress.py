"""What a transfer reports while it runs, and its figures at the end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import PeerTraffic, Receipt
from prefect_stagegate.model.transfers import Tier


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


Side = Literal["network", "hashing", "disk", "waiting"]


class Stopwatch:
    """Measures the time of each side of the work, lap by lap."""

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
    """Bytes that an interrupted run had fetched, and that were verified."""
    reused: int = 0
    """Bytes that the cache had already."""
    dropped_peers: dict[str, str] = field(default_factory=dict)
    """The nodes that were asked no further, and why."""
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
    _threads: set[int] = field(default_factory=set, repr=False)
    """The threads that hashed or wrote."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def spend(self, watch: Stopwatch) -> None:
        """Add a stop watch's times; called by many threads."""
        with self._lock:
            self._threads.add(threading.get_ident())
            for side, seconds in watch.seconds.items():
                self.seconds[side] += seconds

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

    def add_seconds(self, side: Side, seconds: float) -> None:
        """Count seconds that no stop watch measured: of a sync, or of a back-off before a retry."""
        with self._lock:
            self.seconds[side] += seconds

    def count_place(self, tier: Tier, name: str, size: int) -> None:
        """Count an object that came from a place, and its bytes."""
        with self._lock:
            objects, total = self.places.get((tier, name), (0, 0))
            self.places[tier, name] = (objects + 1, total + size)

    def resume(self, size: int) -> None:
        """Count bytes that an interrupted run had fetched."""
        with self._lock:
            self.resumed += size

    @property
    def from_peers(self) -> dict[str, int]:
        """Of the fetched bytes, those that each other node of the site sent, by its name."""
        return {name: size for (tier, name), (_, size) in self.places.items() if tier == "peer"}

    @property
    def peers(self) -> tuple[PeerTraffic, ...]:
        """What each other node of the site sent, and which of them failed; sorted by name."""
        sent = self.from_peers
        names = sorted(sent.keys() | self.dropped_peers.keys())
        return tuple(PeerTraffic(name, sent.get(name, 0), self.dropped_peers.get(name, "")) for name in names)

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
                self.count_place("cache", "", receipt.object.size)
