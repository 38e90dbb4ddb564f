"""The volume that a cache lies on: what kind of storage feeds the GPUs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.environment.difference import UNKNOWN, Difference, Weight
from prefect_stagegate.mounts import NETWORK, mount_of
from prefect_stagegate.units import bytes_text

MEMORY = ("ramfs", "tmpfs")


@dataclass(frozen=True, slots=True)
class CacheVolume:
    """What kind of volume it is. How much of it is free says nothing about its kind."""

    file_system: str
    """As /proc/mounts writes it: `ext4`, `xfs`, `nfs4`, …"""
    medium: str
    """`nvme`, `ssd`, `rotational`, `network`, `memory` or unknown; of virtual disks, what the host lets them say."""
    size_class: int
    """The largest power of two that its size in bytes reaches: disks of one model may differ by some sectors."""
    device: str
    """What is mounted, as in `/dev/nvme0n1p1`. Recorded only: two alike may have two names."""


def capture_volume(folder: Path, root: Path = Path("/")) -> CacheVolume:
    """Look at the volume that holds a folder, or would hold it once it is made.

    Args:
        folder: The cache's folder.
        root: Where `sys` lies.
    """
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


def medium(file_system: str, device: int, root: Path = Path("/")) -> str:
    """What the bytes lie on, by the kernel's number of the device (`st_dev`)."""
    if file_system in NETWORK:
        return "network"
    if file_system in MEMORY:
        return "memory"
    block = root / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}"
    real = Path(os.path.realpath(block))
    if re.search(r"/nvme\d", str(real)):
        return "nvme"
    for folder in (real, real.parent):  # of a partition, its disk tells
        try:
            turns = (folder / "queue/rotational").read_text().strip()
        except OSError:
            continue
        return "rotational" if turns == "1" else "ssd"
    return UNKNOWN


def compare_volumes(there: CacheVolume, here: CacheVolume) -> Iterator[Difference]:
    """Nothing blocks: `feed_rate` measures whether the storage is good enough. A larger volume is harmless."""
    for name in ("file_system", "medium"):
        was, now = getattr(there, name), getattr(here, name)
        if UNKNOWN in (was, now):
            yield Difference("volume", name, was, now, Weight.UNKNOWN, "the system does not tell it")
        elif was != now:
            why = "other storage may feed the GPUs more slowly"
            yield Difference("volume", name, was, now, Weight.WARNING, why, f"Put the cache on {was} here too.")
    if there.size_class != here.size_class:
        smaller = here.size_class < there.size_class
        why = "what fitted there may not fit" if smaller else "what fitted there fits"
        was, now = (f"{bytes_text(size)} or more" for size in (there.size_class, here.size_class))
        weight = Weight.WARNING if smaller else Weight.HARMLESS
        yield Difference("volume", "size", was, now, weight, why, "Give the cache a larger volume." if smaller else "")
