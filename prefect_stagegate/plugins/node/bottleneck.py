"""Find what limits the rate of reading, from measurements."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from prefect_stagegate.plugins.node.tiers import Reading

BUSY = 0.8
"""The share of all cores' time from which on the processor is the bottleneck."""
HELPS = 1.25
"""How many times faster more readers must be for readers to be the bottleneck."""


class Bottleneck(StrEnum):
    """What limits the rate of reading."""

    VOLUME = "volume"
    SOURCE = "source"
    READERS = "readers"
    PROCESSOR = "processor"
    PAGE_CACHE = "page cache"


FIXES: Mapping[Bottleneck, str] = {
    Bottleneck.VOLUME: "Give the cache a faster volume (STAGEGATE_CACHE), or the node fewer accelerators; "
    "see what else uses the volume: iostat -x 1",
    Bottleneck.SOURCE: "The cache lies on another machine. Stage the version on a disk of this one: "
    "STAGEGATE_CACHE=/a/local/disk stagegate stage {address}",
    Bottleneck.READERS: "Raise `readers` of `job:`, and the workers of the job's loader with it.",
    Bottleneck.PROCESSOR: "Give the job more cores, or move other processes off the node: top",
    Bottleneck.PAGE_CACHE: "The file system kept the files in memory, or another process reads them now. "
    "Try again when no other process does. If the file system has its own cache (ZFS), set `bytes` above the memory.",
}
"""What to do about each."""


def bottleneck(reading: Reading, more: Reading, *, cores: int) -> Bottleneck:
    """Find the bottleneck of a reading.

    `more` is the same reading with several times the readers, past the page cache. This process may use `cores`.
    """
    # First: where the processor is busy, more readers could not help.
    if reading.cpu >= BUSY * cores * reading.seconds:
        return Bottleneck.PROCESSOR
    if more.rate >= HELPS * reading.rate:
        return Bottleneck.READERS
    return Bottleneck.SOURCE if reading.tiers.source > reading.tiers.local else Bottleneck.VOLUME
