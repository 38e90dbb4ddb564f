"""One node's content store, on volumes near its GPUs. `layout.py` draws the tree, `volumes.py` joins several."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_stagegate.cache.layout import GROUP_WRITABLE_FILE, Layout
from prefect_stagegate.cache.leases import Leases
from prefect_stagegate.cache.refs import Refs
from prefect_stagegate.cache.views import Views
from prefect_stagegate.durable import Durability
from prefect_stagegate.errors import CacheError
from prefect_stagegate.mounts import FASTEST_FIRST, medium_of

if TYPE_CHECKING:
    from prefect_stagegate.cache.blobs import Blobs
    from prefect_stagegate.cache.memory import PinMemory

__all__ = ["Cache", "Layout", "MissingVolume"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MissingVolume:
    """A further volume of the node that can't be used now."""

    folder: Path
    problem: str

    def __str__(self) -> str:
        return f"the volume {self.folder} is missing: {self.problem}"


class Cache:
    """An opened cache of a node: its blobs, views, refs and leases.

    A node may have further volumes beside its home, each a cache of its own that shares the home's refs and memory.

    Reading a ref or a view loads no hashing and no database: `stagegate path` starts in the time of a shell command.

    Attributes:
        home: The cache that keeps the node's refs; this one itself, unless it is a further volume.
        further: Of a home, the other volumes that can be used.
        missing: Of a home, the other volumes that can't be used.
    """

    def __init__(self, layout: Layout, durability: Durability = Durability.BATCH, home: Cache | None = None) -> None:
        self.layout = layout
        self.durability = durability
        self.home = home or self
        self.further: tuple[Cache, ...] = ()
        self.missing: tuple[MissingVolume, ...] = ()
        self.views = Views(layout, durability)
        self.refs: Refs = home.refs if home else Refs(layout)
        self.leases = Leases(layout)

    @classmethod
    def open(cls, root: Path, *, create: bool = True, durability: Durability = Durability.BATCH) -> Cache:
        """Open the cache at `root`; make it when there is none and `create` is set.

        Raises:
            CacheError: The cache can't be read or made, or `root` holds something else.
        """
        return cls(Layout.open(root, create=create), durability)

    @property
    def root(self) -> Path:
        """The cache's folder."""
        return self.layout.root

    @property
    def volumes(self) -> tuple[Cache, ...]:
        """All volumes of the node that can be used, the home first."""
        return (self.home, *self.home.further)

    @cached_property
    def medium(self) -> str:
        """The kind of storage behind it, one of `FASTEST_FIRST`."""
        return medium_of(self.root)

    @property
    def is_tier(self) -> bool:
        """Whether it is a further volume in memory: it holds copies for fast reading, and a reboot empties it."""
        return self.home is not self and self.medium == "memory"

    def copies(self, dataset: str, digest: str) -> list[tuple[Cache, Path]]:
        """The volumes that have a version complete, each with its view; the fastest first.

        Raises:
            CacheError: The home doesn't tell. Another volume that doesn't is left out, and a warning says so.
        """
        copies: list[tuple[Cache, Path]] = []
        for volume in self.volumes:
            with volume.skipped_when_unreadable():
                if view := volume.views.path(dataset, digest):
                    copies.append((volume, view))
        # What they lie on is looked up only where there is a choice.
        return sorted(copies, key=lambda copy: FASTEST_FIRST.index(copy[0].medium)) if len(copies) > 1 else copies

    def view(self, dataset: str, digest: str) -> Path | None:
        """The folder of a version on any volume of the node; None when it is complete on none.

        Raises:
            CacheError: The home doesn't tell.
        """
        return next((view for _, view in self.copies(dataset, digest)), None)

    def holds(self, digest: str, size: int) -> bool:
        """Whether the volume has a blob; False also for a further volume that can't be read."""
        held = False
        with self.skipped_when_unreadable():
            held = self.blobs.holds(digest, size)
        return held  # noqa: RET504 - an error leaves the block early

    @contextmanager
    def skipped_when_unreadable(self) -> Iterator[None]:
        """Turn a `CacheError` of the block into a warning, unless this is the home: other volumes go on."""
        try:
            yield
        except CacheError as error:
            if self.home is self:
                raise
            log.warning("The volume %s is left out: %s", self.root, error)

    @cached_property
    def blobs(self) -> Blobs:
        """The content by digest.

        Raises:
            CacheError: A power cut left blobs that must be read again, and reading them failed.
        """
        from prefect_stagegate.cache.blobs import Blobs
        from prefect_stagegate.cache.unsynced import read_again

        # Before the first blob is used: after a power cut some may have lost their bytes.
        read_again(self.layout)
        return Blobs(self.layout, self.durability)

    @cached_property
    def memory(self) -> PinMemory:
        """The known digests of pins: one memory for all volumes of the node."""
        if self.home is not self:
            return self.home.memory
        from prefect_stagegate.cache.memory import PinMemory

        if self.layout.shared:
            # Made here, since the umask could keep the group from a file that SQLite makes.
            self.layout.index.touch()
            self.layout.share(self.layout.index, GROUP_WRITABLE_FILE)
        return PinMemory(self.layout.index)
