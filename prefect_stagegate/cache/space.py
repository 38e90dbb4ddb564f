"""The space that writers may fill, so that two of them never believe in the same bytes.

A writer says in its lease how many bytes it is yet to write. What is free to it is what the volume has above its floor,
or what the cache's limit leaves when that is less, without what all other live writers said. A writer that dies gives
its bytes back with its lease.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from prefect_stagegate.cache.layout import Layout, explained
from prefect_stagegate.cache.leases import Lease, Leases, locked, write_reserved
from prefect_stagegate.errors import NoSpace
from prefect_stagegate.units import bytes_text
from prefect_stagegate.unreadable import UnreadableRecords

STEP = 64 << 20
"""Bytes between two updates of what a lease says, and the least that is claimed for what nobody planned."""
AHEAD = 8
"""Of what is free, a writer whose plan isn't at its end claims one of so many parts ahead at most."""
RECORDS = 16 << 20
"""Bytes of the volume that objects never take: leases, pins, views and the pin memory have to be written on it too, and
a collection needs them to make room."""
SMALL_VOLUME = 20
"""Of a volume with less than so many times `RECORDS`, one of so many parts stays for them."""
PAGE = 4096
"""In pages of so many bytes file systems usually give files their room."""
BLOCK = 512
"""Bytes of one of `st_blocks`, whatever the file system's own blocks are (POSIX)."""
_TRIES = 3
"""How often room is made before a writer gives up: others may take what was made."""


@dataclass(frozen=True, slots=True)
class SpaceRules:
    """How much of a volume a cache may take."""

    floor: float = 0.0
    """Share of the volume that stays free."""
    limit: int | None = None
    """Bytes that the cache may hold; None for no limit but the volume's."""
    mends: bool = False
    """Whether what is written puts back what was here and rotted: it may have what is kept free otherwise."""

    def kept_free(self, total: int) -> int:
        """Bytes of a volume of `total` bytes that objects never take: the floor, and room for the cache's records.

        >>> SpaceRules(floor=0.05).kept_free(10**12), SpaceRules().kept_free(10**12), SpaceRules().kept_free(10**7)
        (50000000000, 16777216, 500000)
        """
        if self.mends:
            return 0
        return max(int(total * self.floor), min(RECORDS, total // SMALL_VOLUME))


@dataclass(frozen=True, slots=True)
class Available:
    """What a writer may still write, and why not more. Bytes."""

    free: int
    """What the volume has free."""
    floor: int
    """What must stay free."""
    used: int | None
    """What the cache holds, when it has a limit."""
    limit: int | None
    reserved: int
    """What other live writers are yet to write."""

    @property
    def bytes(self) -> int:
        """What is left; negative when others took more than there was."""
        left = self.free - self.floor
        if self.limit is not None and self.used is not None:
            left = min(left, self.limit - self.used)
        return left - self.reserved

    def __str__(self) -> str:
        parts = [f"{bytes_text(max(0, self.free - self.floor))} are free"]
        if self.floor:
            parts[0] += f" above the floor of {bytes_text(self.floor)}"
        if self.limit is not None and self.used is not None:
            parts.append(f"the cache holds {bytes_text(self.used)} of its limit of {bytes_text(self.limit)}")
        if self.reserved:
            parts.append(f"other writers have reserved {bytes_text(self.reserved)}")
        return ", ".join(parts)


MakeRoom = Callable[[int, int, Available], None]
"""Told how many bytes are needed and how many of them are missing, it frees those; raises `NoSpace` when it can't."""


class Space:
    """What one writer may fill. Safe to use from many threads.

    Args:
        layout: The cache.
        rules: How much of the volume it may take.
        lease: The writer's; without one nobody else is told.
        make_room: Frees bytes when there are too few.
    """

    def __init__(
        self, layout: Layout, rules: SpaceRules, lease: Lease | None = None, make_room: MakeRoom | None = None
    ) -> None:
        self._layout, self._rules, self._lease = layout, rules, lease
        self._make_room = make_room or (lambda size, _, found: _refuse(size, found))
        self._lock = threading.Lock()
        self._left = 0
        self._ahead = 0
        self._claimed = 0
        self._told = 0

    def claim(self, size: int, before_room: Callable[[], None] = lambda: None) -> None:
        """Reserve `size` bytes that will be written later.

        Args:
            size: Zero asks nothing.
            before_room: Called before others' bytes are freed: it holds what must not go.

        Raises:
            NoSpace: They can't be had; nothing was reserved.
        """
        with self._lock:
            from_ahead = min(size, self._ahead)
            if size > from_ahead:
                # By what was claimed so far, so that the looks at the cache are few, however long the plan is.
                self._claim(size - from_ahead, before_room, ahead=self._claimed)
            self._ahead -= from_ahead
            self._claimed += size

    def take(self, size: int) -> None:
        """Write `size` bytes now, from what was claimed; what is missing is claimed.

        Raises:
            NoSpace: They can't be had; nothing may be written.
        """
        with self._lock:
            if self._left < size:
                self._claim(size - self._left, lambda: None, ahead=STEP)
            self._left -= size
            self._ahead = min(self._ahead, self._left)
            if self._told - self._left >= STEP:
                self._tell(self._left)

    def available(self) -> Available:
        """What this writer could claim now."""
        with explained("ask for the free space", self._layout.root), locked(self._layout.leases):
            return self._look()

    def _claim(self, size: int, before_room: Callable[[], None], ahead: int) -> None:
        for tries_left in reversed(range(_TRIES)):
            with explained("reserve space", self._layout.root), locked(self._layout.leases):
                found = self._look()
                free = found.bytes - self._left
                if size <= free:
                    more = max(0, min(ahead, free // AHEAD) - size)
                    self._left += size + more
                    self._ahead += more
                    self._tell(self._left, locked_already=True)
                    return
            if not tries_left:
                _refuse(size, found)
            before_room()
            self._make_room(size, size - free, found)

    def _look(self) -> Available:
        """The figures of one moment: the leases are locked, so nobody else claims or makes a lease."""
        volume = os.statvfs(self._layout.root)
        leases = Leases(self._layout).live(UnreadableRecords())  # what a damaged one reserves, nobody can tell
        others = [lease for lease in leases if not self._lease or lease.id != self._lease.id]
        return Available(
            volume.f_bavail * volume.f_frsize,
            self._rules.kept_free(volume.f_blocks * volume.f_frsize),
            used_bytes(self._layout) if self._rules.limit is not None else None,
            self._rules.limit,
            sum(lease.reserved for lease in others),
        )

    def _tell(self, size: int, *, locked_already: bool = False) -> None:
        self._told = size
        if self._lease is None:
            return
        if locked_already:
            write_reserved(self._layout.leases / self._lease.id, self._lease, size)
        else:
            Leases(self._layout).reserve(self._lease, size)


def room(size: int) -> int:
    """Bytes of the volume that a file of so many bytes takes: whole pages.

    >>> room(0), room(1), room(4096), room(4097)
    (0, 4096, 4096, 8192)
    """
    return -(-size // PAGE) * PAGE


def used_bytes(layout: Layout) -> int:
    """Bytes of the volume that blobs, objects on their way in, and what rotted, take. One look at each file."""
    size = 0
    others = (folder for folder in (layout.ingest, layout.quarantine) if folder.is_dir())
    for folder in (*layout.entries(layout.blobs), *others):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    # A file that is a blob already still has its claim's name for a moment.
                    if folder != layout.ingest or found.st_nlink == 1:
                        size += found.st_blocks * BLOCK
    return size


def _refuse(size: int, found: Available) -> None:
    raise NoSpace(
        f"{bytes_text(size)} more are needed, and {found}",
        hint="Run `stagegate gc`, free some space, or choose a larger volume with --cache or STAGEGATE_CACHE.",
    )
