"""What kind of volume a cache lies on: whose locks are seen there, and which names it takes for one."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

from prefect_stagegate.cache.layout import TAG
from prefect_stagegate.cache.leases import locked
from prefect_stagegate.errors import CacheError

NETWORK = frozenset(
    (
        *("afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "orangefs", "smb3", "smbfs", "virtiofs", "wekafs"),
    )
)
"""Types of file systems that other machines may use at the same time, as /proc/mounts writes them."""
MOUNTS = Path("/proc/self/mounts")
NEEDS_LOCAL = "Collecting garbage needs a local volume. Choose one with --cache or STAGEGATE_CACHE."


def require_locks(root: Path, folder: Path) -> None:
    """Make sure that whoever uses the cache at `root` is seen by its lock; the locks on `folder` are tried.

    Raises:
        CacheError: The volume is a network's, or locks do nothing on it.
    """
    kind, _ = mount_of(root)
    if kind in NETWORK:
        raise CacheError(
            f"{root} lies on {kind}, where a lock that another machine holds may not be seen", hint=NEEDS_LOCAL
        )
    with locked(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(descriptor)
    raise CacheError(f"Locks do nothing on the volume of {root}, so nobody can tell who reads there", hint=NEEDS_LOCAL)


def takes_links(folder: Path) -> bool:
    """Whether files on a folder's volume can have a second name."""
    one, other = (folder / f"link-{uuid.uuid4().hex}" for _ in range(2))
    try:
        one.touch()
        other.hardlink_to(one)
    except OSError:
        return False
    finally:
        one.unlink(missing_ok=True)
        other.unlink(missing_ok=True)
    return True


def folds_case(root: Path) -> bool:
    """Whether the volume of the cache at `root` takes names that differ only in case for one (ext4's casefold, SMB)."""
    try:
        return (root / TAG).samefile(root / TAG.lower())
    except OSError:
        return False


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
    found = [(len(at), order, kind, what) for order, (at, kind, what) in enumerate(mounts) if real.is_relative_to(at)]
    return max(found)[2:] if found else ("", "")
