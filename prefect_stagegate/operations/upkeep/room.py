"""The free space on the volume of a node's cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.operations.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Room:
    """The volume that holds a node's cache. Sizes in bytes."""

    node: str
    cache: Path
    free: int
    """What this user may still write."""
    size: int
    warning: int
    """With less free than this, the volume is nearly full."""

    @property
    def used(self) -> int:
        """Bytes that are in use, or reserved for the system."""
        return self.size - self.free

    @property
    def share(self) -> float:
        """The share of the volume that is used, from 0.0 to 1.0."""
        return self.used / self.size if self.size else 0.0

    @property
    def nearly_full(self) -> bool:
        """Whether less is free than the larger of STAGEGATE_FREE_WARNING and STAGEGATE_FREE_FLOOR."""
        return self.free < self.warning


def look_at_room(workspace: Workspace) -> Room:
    """Measure the volume of a node's cache.

    Raises:
        OSError: The volume does not answer.
    """
    stat = os.statvfs(workspace.cache.root)
    size = stat.f_blocks * stat.f_frsize
    share = max(workspace.settings.free_warning, workspace.settings.free_floor)
    return Room(workspace.settings.node, workspace.cache.root, stat.f_bavail * stat.f_frsize, size, int(size * share))
