"""The order in which a cache's blobs are hashed again: around the circle of digests, from where the last run stopped.

Digests are spread evenly, so a seventh of the circle is about a seventh of the blobs, and seven runs that each do a
seventh come to all of them, also when blobs came and went and when a run was stopped. Where the next run begins is a
note in the index; when that is lost it begins anywhere.
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
"""How many digests there are."""
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
        """How far a blob's name is from its start."""
        return (int(name, 16) - self.start) % CIRCLE


WHOLE = Arc(0, CIRCLE)


def next_arc(cache: Cache, share: Fraction) -> Arc:
    """The part of the blobs whose turn it is."""
    noted = cache.memory.noted(NOTE) or ""
    start = noted if _NAME.fullmatch(noted) else secrets.token_hex(32)
    return Arc(int(start, 16), ceil(CIRCLE * share))


def note_end(cache: Cache, arc: Arc) -> None:
    """Let the next run begin where an arc ends."""
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
        # The first folder comes twice: from the start on, and in the end up to it.
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
