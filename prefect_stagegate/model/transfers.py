"""What a staging transferred: bytes by where they came from, and what held it up. Pure records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tier = Literal["source", "mirror", "peer", "cache"]
"""Where bytes came from: a source that listed them, a mirror of it, another node of the site, or this node's cache."""
Bottleneck = Literal["network", "hashing", "disk"]
PLACES = 50
"""Sources, mirrors and nodes that are recorded, those with the most bytes first; the others are counted."""
NAME = 1000
"""Characters of a place's name that are recorded, at most; their escapes may have ten times as many."""
MOST = 1e18
"""No measurement reaches it."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came from one place."""

    tier: Tier
    name: str
    """A URL free of credentials, or a node's name."""
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """One staging that fetched bytes. The catalog keeps the last one of each version."""

    at: str
    """When it ended, as ISO 8601."""
    node: str
    seconds: float
    """From the first request to the last sync."""
    fetched: int
    """Bytes that came over the wire."""
    resumed: int
    """Bytes that an interrupted staging had fetched, and that were verified."""
    traffic: tuple[Traffic, ...]
    """The places with the most bytes first."""
    more_places: int
    """Places that are not listed."""
    network: float
    """Seconds, over the threads that hash and write, in which they had no bytes to work on."""
    hashing: float
    disk: float
    """Seconds of writing and syncing."""
    backoff: float
    """Seconds between a failed read and its retry, over all reads."""
    retries: int

    def __post_init__(self) -> None:
        """Refuse what no staging measures, since a record in the catalog may be anybody's."""
        times = (self.seconds, self.network, self.hashing, self.disk, self.backoff)
        counts = (self.fetched, self.resumed, self.retries, self.more_places)
        places = [number for place in self.traffic for number in (place.objects, place.bytes)]
        is_small = len(self.traffic) <= PLACES
        has_names = all(len(place.name) <= 10 * NAME for place in self.traffic)
        if not (is_small and has_names and all(0 <= number < MOST for number in (*times, *counts, *places))):
            raise ValueError("no staging measures this")

    @property
    def rate(self) -> float:
        """Bytes a second over the wire, on average."""
        return self.fetched / self.seconds if self.seconds else 0.0

    @property
    def shares(self) -> dict[Bottleneck, float]:
        """The share of the threads' time that each side took, from 0.0 to 1.0; the largest first."""
        sides: dict[Bottleneck, float] = {"network": self.network, "hashing": self.hashing, "disk": self.disk}
        total = sum(sides.values())
        ordered = sorted(sides.items(), key=lambda side: -side[1])
        return {side: seconds / total if total else 0.0 for side, seconds in ordered}

    @property
    def bottleneck(self) -> Bottleneck:
        """The side that took the most time."""
        return next(iter(self.shares))
