"""The space that writers may fill. Reservations keep two writers from counting on the same free bytes.

A writer's lease says how many bytes it is yet to write. Free to a writer is what the volume has above its floor, or
what the cache's limit leaves when that is less, minus the reservations of all other live writers. When a writer dies,
its reservation ends with its lease.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.cache.layout import Layout, explained
from prefect_stagegate.cache.leases import Lease, Leases, locked, write_reserved
from prefect_stagegate.errors import NoSpace
from prefect_stagegate.units import bytes_text
from prefect_stagegate.unreadable import UnreadableRecords

STEP = 64 << 20
"""Bytes between two updates of a lease's reservation; also the least that is claimed for unplanned bytes."""
AHEAD = 8
"""A writer whose plan is not complete claims at most one of so many parts of the free space ahead."""
AMPLE = 256
"""A volume is ample for bytes that fit so many times."""
RECORDS = 16 << 20
"""Bytes of the volume that objects never take: leases, pins, views and the pin memory are written there, too, and a
collection needs them to make room."""
SMALL_VOLUME = 20
"""On a volume smaller than so many times `RECORDS`, one of so many parts of it is kept instead."""
LARGER = "choose a larger volume with --cache or STAGEGATE_CACHE, or lower STAGEGATE_FREE_FLOOR, a percentage of it"
"""The end of a hint for people who have no space left."""
PAGE = 4096
"""Bytes of a page: file systems usually give files whole pages."""
BLOCK = 512
"""Bytes of one unit of `st_blocks`, whatever the file system's own blocks are (POSIX)."""
_TRIES = 3
"""How often a writer tries to claim: others may take the room that was made for it."""


@dataclass(frozen=True, slots=True)
class SpaceRules:
    """How much of a volume a cache may take."""

    floor: float = 0.0
    """Share of the volume that stays free."""
    limit: int | None = None
    """Bytes that the cache may hold; None for no limit but the volume's."""
    is_repair: bool = False
    """Whether rotten files are replaced: a repair may also use the bytes that are kept free otherwise."""

    def kept_free(self, total: int) -> int:
        """Bytes of a volume of `total` bytes that objects never take: the floor, and room for the cache's records.

        >>> SpaceRules(floor=0.05).kept_free(10**12), SpaceRules().kept_free(10**12), SpaceRules().kept_free(10**7)
        (50000000000, 16777216, 500000)
        """
        if self.is_repair:
            return 0
        return max(int(total * self.floor), min(RECORDS, total // SMALL_VOLUME))


@dataclass(frozen=True, slots=True)
class Available:
    """How many bytes a writer may still write, and the figures that limit them. All in bytes."""

    free: int
    """Free on the volume."""
    floor: int
    """Must stay free on the volume."""
    used: int | None
    """Held by the cache; None when it has no limit."""
    limit: int | None
    reserved: int
    """Reserved by other live writers."""

    @property
    def bytes(self) -> int:
        """The bytes that are left; negative when others took more than there was."""
        left = self.free - self.floor
        if self.limit is not None and self.used is not None:
            left = min(left, self.limit - self.used)
        return left - self.reserved

    def __str__(self) -> str:
        parts = [f"{bytes_text(self.free)} are free"]
        if self.floor:
            parts[0] += f", and {bytes_text(self.floor)} must stay free (STAGEGATE_FREE_FLOOR)"
        if self.limit is not None and self.used is not None:
            parts.append(f"the cache holds {bytes_text(self.used)} of its limit of {bytes_text(self.limit)}")
        if self.reserved:
            parts.append(f"other writers have reserved {bytes_text(self.reserved)}")
        return ", ".join(parts)


MakeRoom = Callable[[int, int, Available], None]
"""Frees bytes: takes how many are needed, how many of them are missing, and what is available. Raises `NoSpace`."""


class Space:
    """The space that one writer may fill. Safe to use from many threads.

    `lease` tells other writers of the reservation; `make_room` frees bytes when there are too few.
    """

    def __init__(
        self, layout: Layout, rules: SpaceRules, lease: Lease | None = None, make_room: MakeRoom | None = None
    ) -> None:
        self._layout, self._rules, self._lease = layout, rules, lease
        self._make_room = make_room or (lambda size, _, available: _refuse(size, available))
        self._lock = threading.Lock()
        self._left = 0
        self._ahead = 0
        self._claimed = 0
        self._reserved = 0

    def claim(self, size: int, before_room: Callable[[], None] = lambda: None) -> None:
        """Reserve `size` bytes that will be written later.

        Args:
            size: Bytes; with zero, the cache is not looked at.
            before_room: Called before room is made, to hold blobs that must stay.

        Raises:
            NoSpace: There is too little space; nothing was reserved.
        """
        with self._lock:
            from_ahead = min(size, self._ahead)
            if size > from_ahead:
                # As much ahead as was claimed so far: doubling keeps the measurements few, however long the plan is.
                self._claim(size - from_ahead, before_room, ahead=self._claimed)
            self._ahead -= from_ahead
            self._claimed += size

    def is_ample(self, size: int) -> bool:
        """Whether the writer may write more than `AMPLE` times `size` bytes."""
        return measure(self._layout, self._rules, self._lease).bytes > AMPLE * size

    def take(self, size: int) -> None:
        """Use `size` claimed bytes, since they are written now. Bytes that are missing are claimed first.

        Raises:
            NoSpace: There is too little space; nothing may be written.
        """
        with self._lock:
            if self._left < size:
                self._claim(size - self._left, lambda: None, ahead=STEP)
            self._left -= size
            self._ahead = min(self._ahead, self._left)
            # Not for each object: an update writes to the lease's file.
            if self._reserved - self._left >= STEP:
                with explained("reserve space", self._layout.root), locked(self._layout.leases, fcntl.LOCK_SH):
                    self._write_reservation()

    def _claim(self, size: int, before_room: Callable[[], None], ahead: int) -> None:
        for tries_left in reversed(range(_TRIES)):
            # Measured and written under one lock, so that no other writer claims the same bytes in between.
            with explained("reserve space", self._layout.root), locked(self._layout.leases):
                available = measure(self._layout, self._rules, self._lease)
                free = available.bytes - self._left
                if size <= free:
                    # Never so much ahead that another writer finds no room.
                    extra = max(0, min(ahead, free // AHEAD) - size)
                    self._left += size + extra
                    self._ahead += extra
                    self._write_reservation()
                    return
            if not tries_left:
                _refuse(size, available)
            before_room()
            # Outside of the lock, since a collection needs it. Others may be faster, hence the loop.
            self._make_room(size, size - free, available)

    def _write_reservation(self) -> None:
        """Write into the lease how many bytes are yet to be written. The caller has a lock of the leases."""
        self._reserved = self._left
        if self._lease is not None:
            write_reserved(self._layout.leases / self._lease.id, self._lease, self._left)


class Unlimited:
    """Space that another process has reserved."""

    def take(self, size: int) -> None:
        """Use bytes of it."""


def measure(layout: Layout, rules: SpaceRules, lease: Lease | None = None) -> Available:
    """The volume's figures now, for the writer that holds `lease`.

    A caller that holds the lock of the leases counts on them: no writer reserves space meanwhile.
    """
    volume = os.statvfs(layout.root)
    leases = Leases(layout).live(UnreadableRecords())  # a damaged lease's reservation is unknown
    return Available(
        volume.f_bavail * volume.f_frsize,
        rules.kept_free(volume.f_blocks * volume.f_frsize),
        used_bytes(layout) if rules.limit is not None else None,
        rules.limit,
        sum(other.reserved for other in leases if not lease or other.id != lease.id),
    )


def room(size: int) -> int:
    """Bytes of the volume that a file of `size` bytes takes: whole pages.

    >>> room(0), room(1), room(4096), room(4097)
    (0, 4096, 4096, 8192)
    """
    return -(-size // PAGE) * PAGE


def used_bytes(layout: Layout) -> int:
    """Bytes of the volume that blobs, objects on their way in, and quarantined blobs take. Looks at each file once."""
    return sum(folder_bytes(layout, folder) for folder in content_folders(layout))


def content_folders(layout: Layout) -> list[Path]:
    """The folders whose files count as used: those of blobs, of objects on their way in, and of quarantined blobs."""
    return [
        *layout.entries(layout.blobs),
        *(folder for folder in (layout.ingest, layout.quarantine) if folder.is_dir()),
    ]


def folder_bytes(layout: Layout, folder: Path) -> int:
    """Bytes of the volume that the files of a content folder take."""
    size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                # A committed blob still has its claim's name for a moment; it is counted as a blob.
                if folder != layout.ingest or status.st_nlink == 1:
                    size += status.st_blocks * BLOCK
    return size


def _refuse(size: int, available: Available) -> None:
    raise NoSpace(
        f"No space left: needs {bytes_text(size)} more, but {available}",
        hint=f"Run `stagegate gc`, free some space, {LARGER}.",
    )
