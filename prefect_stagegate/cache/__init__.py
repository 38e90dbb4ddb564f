"""One node's content store, on a volume near its GPUs. `layout.py` draws the tree."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_stagegate.cache.layout import GROUP_WRITABLE_FILE, Layout
from prefect_stagegate.cache.leases import Leases
from prefect_stagegate.cache.ref_copies import Refs
from prefect_stagegate.cache.views import Views
from prefect_stagegate.durable import Durability
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model.settings import ONE_CACHE

if TYPE_CHECKING:
    from prefect_stagegate.cache.blobs import Blobs
    from prefect_stagegate.cache.memory import PinMemory

__all__ = ["Cache", "Layout"]


class Cache:
    """An opened cache of a node: its blobs, views, refs and leases.

    Reading a ref or a view loads no hashing and no database: `stagegate path` starts in the time of a shell command.
    """

    def __init__(self, layout: Layout, durability: Durability = Durability.BATCH) -> None:
        self.layout = layout
        self.durability = durability
        self.views = Views(layout, durability)
        self.refs = Refs(layout)
        self.leases = Leases(layout)

    @classmethod
    def open(cls, root: Path, *, create: bool = True, durability: Durability = Durability.BATCH) -> Cache:
        """Open the cache at `root`; make it when there is none and `create` is set.

        Raises:
            UsageError: `root` names several folders.
            CacheError: The cache can't be read or made, or `root` holds something else.
        """
        if re.search(r",\s*[/~]", str(root)):
            raise UsageError(f"{root} names several folders, but {ONE_CACHE}")
        return cls(Layout.open(root, create=create), durability)

    @property
    def root(self) -> Path:
        """The cache's folder."""
        return self.layout.root

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
        """The known digests of pins."""
        from prefect_stagegate.cache.memory import PinMemory

        if self.layout.shared:
            # Made here, since the umask could keep the group from a file that SQLite makes.
            self.layout.index.touch()
            self.layout.share(self.layout.index, GROUP_WRITABLE_FILE)
        return PinMemory(self.layout.index)
