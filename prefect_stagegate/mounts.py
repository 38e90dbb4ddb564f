"""The file systems that are mounted here, by /proc/mounts, and the kind of storage behind them."""

from __future__ import annotations

import os
import re
from pathlib import Path

NETWORK = frozenset(
    (
        *("afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "orangefs", "smb3", "smbfs", "virtiofs", "wekafs"),
    )
)
"""Types of file systems that other machines may use at the same time, by their names in /proc/mounts."""
MEMORY = ("ramfs", "tmpfs")
"""Types of file systems that lie in memory: a reboot empties them."""
MOUNTS = Path("/proc/self/mounts")


def mount_of(path: Path) -> tuple[str, str]:
    """Type and device of the file system that holds a path, by /proc/mounts; empty when it doesn't tell."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return "", ""
    real = Path(os.path.realpath(path))
    deepest, mount = "", ("", "")
    for line in lines:
        device, point, kind, *_ = line.split(" ")
        # The kernel writes a space in a path as \040, since spaces separate the fields.
        point = point.replace("\\040", " ")
        # The deepest mount point above the path counts. Of several mounts on one point, the last hides the others.
        if len(point) >= len(deepest) and real.is_relative_to(point):
            deepest, mount = point, (kind, device)
    return mount


def medium(file_system: str, device: int, root: Path = Path("/")) -> str:
    """The kind of storage behind a device, `nvme` or `memory` for example, by the kernel's number of it (`st_dev`)."""
    if file_system in NETWORK:
        return "network"
    if file_system in MEMORY:
        return "memory"
    block = root / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}"
    real = Path(os.path.realpath(block))
    # By its path: the kernel's flag below is the same for NVMe and other SSDs.
    if re.search(r"/nvme\d", str(real)):
        return "nvme"
    # A partition has no such file; its disk, the folder above, has it.
    for folder in (real, real.parent):
        try:
            rotational = (folder / "queue/rotational").read_text().strip()
        except OSError:
            continue
        return "rotational" if rotational == "1" else "ssd"
    return "unknown"
