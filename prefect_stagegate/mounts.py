"""The file systems that are mounted here, by /proc/mounts."""

from __future__ import annotations

import os
from pathlib import Path

NETWORK = frozenset(
    (
        *("afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "orangefs", "smb3", "smbfs", "virtiofs", "wekafs"),
    )
)
"""Types of file systems that other machines may use at the same time, by their names in /proc/mounts."""
MOUNTS = Path("/proc/self/mounts")


def mount_of(path: Path) -> tuple[str, str]:
    """Type and device of the file system that holds a path, by /proc/mounts; empty when it doesn't tell."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return "", ""
    real = Path(os.path.realpath(path))
    # The kernel writes a space in a path as \040, since spaces separate the fields.
    mounts = [
        (point.replace("\\040", " "), kind, device) for device, point, kind, *_ in (line.split(" ") for line in lines)
    ]
    # The deepest mount point above the path counts. Of several mounts on one point, the last hides the others.
    candidates = [
        (len(point), order, kind, device)
        for order, (point, kind, device) in enumerate(mounts)
        if real.is_relative_to(point)
    ]
    return max(candidates)[2:] if candidates else ("", "")
