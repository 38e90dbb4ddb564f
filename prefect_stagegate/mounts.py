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
"""Types of file systems that other machines may use at the same time, as /proc/mounts writes them."""
MOUNTS = Path("/proc/self/mounts")


def mount_of(path: Path) -> tuple[str, str]:
    """Type and device of the file system that holds a path, as /proc/mounts has them; empty when it doesn't tell."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return "", ""
    real = Path(os.path.realpath(path))
    mounts = [
        (point.replace("\\040", " "), kind, what) for what, point, kind, *_ in (line.split(" ") for line in lines)
    ]
    # The longest place that holds the path; of several mounts on it the last one is seen.
    candidates = [
        (len(at), order, kind, what) for order, (at, kind, what) in enumerate(mounts) if real.is_relative_to(at)
    ]
    return max(candidates)[2:] if candidates else ("", "")
