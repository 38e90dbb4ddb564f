"""The volume of a cache: the kind of storage that feeds the GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.environment.difference import UNKNOWN, EnvironmentDifference, Weight
from prefect_stagegate.mounts import medium, mount_of
from prefect_stagegate.units import bytes_text


@dataclass(frozen=True, slots=True)
class CacheVolume:
    """The kind of a volume. Its free space is not recorded."""

    file_system: str
    """As /proc/mounts writes it: `ext4`, `xfs`, `nfs4`, …"""
    medium: str
    """`nvme`, `ssd`, `rotational`, `network`, `memory` or unknown; of a virtual disk, what the host reports."""
    size_class: int
    """The largest power of two up to its size in bytes: disks of one model may differ by some sectors."""
    device: str
    """The mounted device, as in `/dev/nvme0n1p1`. Not compared: equal volumes may have different names."""


def capture_volume(folder: Path, root: Path = Path("/")) -> CacheVolume:
    """Capture the volume that holds a folder, or would hold it once it is made."""
    # A cache that is not made yet will lie on the volume of the nearest folder above it.
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    kind, device = mount_of(folder)
    try:
        stat = os.statvfs(folder)
        total, number = stat.f_blocks * stat.f_frsize, folder.stat().st_dev
    except OSError:
        return CacheVolume(kind or UNKNOWN, UNKNOWN, 0, device or UNKNOWN)
    size_class = 1 << (total.bit_length() - 1) if total else 0
    return CacheVolume(kind or UNKNOWN, medium(kind, number, root), size_class, device or UNKNOWN)


def compare_volumes(there: CacheVolume, here: CacheVolume) -> Iterator[EnvironmentDifference]:
    """Yield how the volumes differ. Nothing blocks: the check `feed_rate` measures the storage."""
    for name in ("file_system", "medium"):
        was, now = getattr(there, name), getattr(here, name)
        if UNKNOWN in (was, now):
            yield EnvironmentDifference("volume", name, was, now, Weight.UNKNOWN, "the system does not report it")
        elif was != now:
            why = "other storage may feed the GPUs more slowly"
            fix = f"Put the cache on {was} here too."
            yield EnvironmentDifference("volume", name, was, now, Weight.WARNING, why, fix)
    if there.size_class != here.size_class:
        smaller = here.size_class < there.size_class
        why = "what fitted there may not fit" if smaller else "what fitted there fits"
        was, now = (f"{bytes_text(size)} or more" for size in (there.size_class, here.size_class))
        weight = Weight.WARNING if smaller else Weight.HARMLESS
        fix = "Give the cache a larger volume." if smaller else ""
        yield EnvironmentDifference("volume", "size", was, now, weight, why, fix)
