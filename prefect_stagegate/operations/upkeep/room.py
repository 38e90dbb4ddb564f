"""How much room the volume of a node's cache has left."""

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
    """Less free than this is nearly full."""

    @property
    def used(self) -> int:
        """What others hold, and what is reserved for the system."""
        return self.size - self.free

    @property
    def share(self) -> float:
        """The share of the volume that is used, from 0.0 to 1.0."""
        return self.used / self.size if self.size else 0.0

    @property
    def nearly_full(self) -> bool:
        """Whether less is free than STAGEGATE_FREE_WARNING, and STAGEGATE_FREE_FLOOR, want."""
        return self.free < self.warning


def look_at_room(workspace: Workspace) -> Room:
    """Ask the volume of a node's cache.

    Raises:
        OSError: It does not answer.
    """
    found = os.statvfs(workspace.cache.root)
    size = found.f_blocks * found.f_frsize
    share = max(workspace.settings.free_warning, workspace.settings.free_floor)
    return Room(workspace.settings.node, workspace.cache.root, found.f_bavail * found.f_frsize, size, int(size * share))
