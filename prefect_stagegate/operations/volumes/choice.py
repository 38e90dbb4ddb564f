"""Choosing the volume that a version goes to. Pure: the caller looks at the volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefect_stagegate.mounts import FASTEST_FIRST
from prefect_stagegate.units import bytes_text, count_text


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """What decides whether a version goes to a volume. Sizes are in bytes."""

    folder: str
    medium: str
    """One of `FASTEST_FIRST`."""
    held: int
    """Bytes of the version, or of the last one of its dataset, that the volume holds."""
    room: int
    """Bytes that may still be written there, what a collection would free included where it is needed."""
    near_gpus: int = 0
    """GPUs on the NUMA node of the volume's disks."""
    gpus: int = 0
    """All GPUs that this process sees."""


@dataclass(frozen=True, slots=True)
class VolumeChoice:
    """A chosen volume."""

    folder: str
    reason: str
    """Why, for people."""


def choose_volume(volumes: Sequence[VolumeFacts], size: int) -> VolumeChoice:
    """Choose the volume for a version of `size` bytes, which is 0 where nothing tells its size.

    The volume that holds most of it already; else, among those with room, the nearest to the GPUs, then the fastest,
    then the one with most room. Volumes that are alike are taken in their order.

    >>> disks = [VolumeFacts("/a", "ssd", 0, 900), VolumeFacts("/b", "nvme", 0, 500)]
    >>> choose_volume(disks, 400).folder, choose_volume(disks, 600).folder
    ('/b', '/a')
    """
    fitting = [volume for volume in volumes if volume.room >= size - volume.held]
    if not fitting:
        closest = max(volumes, key=lambda volume: volume.held + volume.room)
        return VolumeChoice(closest.folder, f"no volume has room for {bytes_text(size)}, and it has most")
    best, *others = sorted(
        fitting,
        key=lambda volume: (-volume.held, -volume.near_gpus, FASTEST_FIRST.index(volume.medium), -volume.room),
    )
    if not others:
        return VolumeChoice(best.folder, f"it alone has room for {bytes_text(size)}" if size else "it alone is there")
    return VolumeChoice(best.folder, _reason(best, others[0], size))


def _reason(best: VolumeFacts, next_best: VolumeFacts, size: int) -> str:
    """The first respect in which a volume is better than the next one."""
    if best.held > next_best.held:
        return f"it holds {bytes_text(best.held)} of {bytes_text(size)} already"
    if best.near_gpus > next_best.near_gpus:
        return f"{best.near_gpus} of {count_text(best.gpus, 'GPU')} on its NUMA node"
    if best.medium != next_best.medium:
        return f"{best.medium} is faster than {next_best.medium}"
    if best.room > next_best.room:
        return f"it has most room: {bytes_text(best.room)}"
    return "the volumes are alike, and it is the first"
