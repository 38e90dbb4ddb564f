"""What a cache's volume supports: locks, hard links, and names that differ only in case."""

from __future__ import annotations

import uuid
from pathlib import Path

from prefect_stagegate.cache.holders import is_locked
from prefect_stagegate.cache.layout import TAG
from prefect_stagegate.cache.leases import locked
from prefect_stagegate.errors import CacheError
from prefect_stagegate.mounts import NETWORK, mount_of

NEEDS_LOCAL = "Collecting garbage needs a local volume. Choose one with --cache or STAGEGATE_CACHE."


def require_locks(root: Path, folder: Path) -> None:
    """Require a volume where flock shows who uses the cache at `root`; try a lock on `folder`.

    Raises:
        CacheError: The volume is a network file system, or locks do nothing on it.
    """
    kind, _ = mount_of(root)
    if kind in NETWORK:
        raise CacheError(
            f"{root} is on {kind}, where this node may not see the locks of other machines", hint=NEEDS_LOCAL
        )
    # A second lock on a locked folder must be refused, else locks do nothing here.
    with locked(folder):
        locks_work = is_locked(folder)
    if not locks_work:
        raise CacheError(
            f"File locks have no effect on the volume of {root}, so it is unknown who uses it", hint=NEEDS_LOCAL
        )


def takes_links(folder: Path) -> bool:
    """Whether a folder's volume takes hard links."""
    file, link = (folder / f"link-{uuid.uuid4().hex}" for _ in range(2))
    try:
        file.touch()
        link.hardlink_to(file)
    except OSError:
        return False
    finally:
        file.unlink(missing_ok=True)
        link.unlink(missing_ok=True)
    return True


def folds_case(root: Path) -> bool:
    """Whether the volume of the cache at `root` ignores case in names (ext4's casefold, SMB)."""
    try:
        # The tag's name is in upper case: in lower case it is found only where case doesn't count.
        return (root / TAG).samefile(root / TAG.lower())
    except OSError:
        return False
