"""The machine: its operating system, the container image, and the kind of storage that feeds the GPUs.

Only facts that two machines can share are recorded: no name, address or serial number.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from prefect_stagegate.environment.difference import UNKNOWN, EnvironmentDifference, Weight
from prefect_stagegate.model.naming import DIGEST
from prefect_stagegate.mounts import medium, mount_of
from prefect_stagegate.units import bytes_text

RELEASE_FILES = ("etc/os-release", "usr/lib/os-release")
DECLARED = ("architecture", "os")
"""Facts whose difference blocks unless the caller declares others."""


@dataclass(frozen=True, slots=True)
class Host:
    """What programs run on."""

    architecture: str
    """`x86_64`, `aarch64`, …"""
    os: str
    """Distribution and release, as in `debian 12`; in a container the container's."""
    kernel: str
    """Name and release, as in `Linux 6.8.0-31-generic`."""
    libc: str
    """Name and version, as in `glibc 2.36`."""


def capture_host(root: Path = Path("/")) -> Host:
    """Capture the facts of this machine."""
    kernel = f"{platform.system() or sys.platform} {platform.release() or UNKNOWN}"
    libc = " ".join(filter(None, platform.libc_ver())) or UNKNOWN
    return Host(platform.machine() or UNKNOWN, _os(root), kernel, libc)


def _os(root: Path) -> str:
    # The first file that exists counts, as os-release(5) has it.
    for name in RELEASE_FILES:
        try:
            lines = (root / name).read_text(errors="replace").splitlines()
        except OSError:
            continue
        facts = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
        return " ".join(filter(None, (facts.get("ID"), facts.get("VERSION_ID")))) or UNKNOWN
    return UNKNOWN


def compare_hosts(there: Host, here: Host, declared: Collection[str] = DECLARED) -> Iterator[EnvironmentDifference]:
    """Yield a block for each declared fact that differs, a warning for each other one."""
    facts_here = asdict(here)
    for name, was in asdict(there).items():
        now = facts_here[name]
        if UNKNOWN in (was, now):
            yield EnvironmentDifference("host", name, was, now, Weight.UNKNOWN, "the system does not report it")
        elif was != now:
            weight = Weight.BLOCKING if name in declared else Weight.WARNING
            why = "declared to be the same" if name in declared else "not declared to be the same"
            fix = f"Run on {was} here too, or allow the difference."
            yield EnvironmentDifference("host", name, was, now, weight, why, fix)


PODMAN = Path("run/.containerenv")
"""Where Podman writes the image's reference for a privileged container; a reference may hold the digest."""


def capture_image(declared: str = "", root: Path = Path("/")) -> str:
    """The image's digest, `sha256:<hex>`, or unknown.

    A container can't see its own digest, so whoever starts it declares it by STAGEGATE_IMAGE_DIGEST.
    """
    if declared:
        return declared
    try:
        lines = (root / PODMAN).read_text(errors="replace").splitlines()
    except OSError:
        return UNKNOWN
    reference = next((line for line in lines if line.startswith("image=")), "")
    # Only a reference by digest has an @.
    match = DIGEST.search(reference.partition("@")[2])
    return match[0] if match else UNKNOWN


def compare_images(there: str, here: str) -> Iterator[EnvironmentDifference]:
    """Yield a block when the images differ, since another image may hold anything."""
    if UNKNOWN in (there, here):
        why = "the digest of the image is not set, and equal tags prove nothing"
        fix = "Set STAGEGATE_IMAGE_DIGEST where the container is started, then check both environments again."
        yield EnvironmentDifference("image", "digest", there, here, Weight.UNKNOWN, why, fix)
    elif there != here:
        why = "another image may hold other software"
        fix = f"Run the image {there} here too."
        yield EnvironmentDifference("image", "digest", there, here, Weight.BLOCKING, why, fix)


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
