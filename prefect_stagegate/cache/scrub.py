"""The order in which a cache's blobs are hashed again: around the circle of digests, from where the last run stopped.

Digests are spread evenly, so a seventh of the circle has about a seventh of the blobs. Seven runs that each do a
seventh cover all blobs, even when blobs come and go, or a run is stopped. The start of the next run is a note in the
pin memory; when the note is lost, the next run starts at a random digest.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.layout import Layout, explained

CIRCLE = 1 << 256
"""The number of possible digests."""
FOLDERS = 256
NOTE = "verified up to"
_NAME = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Arc:
    """A part of the circle of digests."""

    start: int
    size: int

    def __contains__(self, digest: str) -> bool:
        """Whether `blake3:<hex>` lies on it."""
        return self.offset(digest[7:]) < self.size

    def offset(self, name: str) -> int:
        """The distance of a blob's name from the arc's start."""
        return (int(name, 16) - self.start) % CIRCLE


WHOLE = Arc(0, CIRCLE)


def next_arc(cache: Cache, share: Fraction) -> Arc:
    """The next part of the blobs to hash."""
    note = cache.memory.noted(NOTE) or ""
    # Runs that lose their note each time would else hash the same blobs over and over.
    start = note if _NAME.fullmatch(note) else secrets.token_hex(32)
    return Arc(int(start, 16), ceil(CIRCLE * share))


def note_end(cache: Cache, arc: Arc) -> None:
    """Note that the next run begins at the end of an arc."""
    cache.memory.note(NOTE, f"{(arc.start + arc.size) % CIRCLE:064x}")


def blobs_on(layout: Layout, arc: Arc) -> Iterator[str]:
    """The digests of the blobs on an arc, in their order from its start.

    Raises:
        CacheError: They can't be listed.
    """
    first = arc.start * FOLDERS // CIRCLE
    for step in range(FOLDERS + 1):
        folder = f"{(first + step) % FOLDERS:02x}"
        if step and arc.offset(folder + "0" * 62) >= arc.size:
            return
        names = _names(layout, folder)
        # An arc may begin within a folder, which then comes twice: from the start on, and at the end up to it.
        if step == 0:
            names = [name for name in names if int(name, 16) >= arc.start]
        elif step == FOLDERS:
            names = [name for name in names if int(name, 16) < arc.start]
        yield from (f"blake3:{name}" for name in names if arc.offset(name) < arc.size)


def _names(layout: Layout, folder: str) -> list[str]:
    with explained("list the blobs", layout.blobs):
        try:
            return sorted(path.name for path in (layout.blobs / folder).iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []
