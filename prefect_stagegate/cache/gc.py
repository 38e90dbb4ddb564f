"""Collecting garbage: views that nothing needs, then blobs that no view holds.

What a ref of this node names, what is leased and what is pinned stays. Things are taken out of sight under the lock
of the leases, and unlinked after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prefect_stagegate.cache.blobs import Blobs
from prefect_stagegate.cache.layout import Layout, explained
from prefect_stagegate.cache.leases import Lease, LeaseKind, Leases, locked
from prefect_stagegate.cache.refs import Refs
from prefect_stagegate.cache.unsynced import PREFIX as UNSYNCED
from prefect_stagegate.cache.views import Views, remove_tree
from prefect_stagegate.cache.volume import require_locks

VIEW = "view-"
"""What the names in `ingest/` begin with that only writers make, and that no later run can go on with."""
RESUME_SECONDS = 24 * 3600
"""How long a half-fetched object waits for a run that resumes it."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection took, or would take."""

    versions: tuple[str, ...]
    """`dataset@sha256:…` of the views."""
    blobs: int
    bytes: int
    """Bytes of those blobs: what the volume gets back."""
    kept: tuple[str, ...] = field(default=())
    """Why things stay that no ref names, one line each."""


def collect(layout: Layout, *, dry_run: bool = False) -> Collection:
    """Remove what no ref, lease or pin needs.

    While a writer lives, blobs stay, for it may be about to link them, and so do the views of its dataset: one of them
    may be what it just made, and no ref names it yet.

    Raises:
        CacheError: The cache can't be changed, or lies where locks don't tell who uses it.
    """
    views, refs = Views(layout), Refs(layout)
    with explained("collect garbage", layout.root):
        require_locks(layout.root, layout.trash)
        with Leases(layout).frozen() as leases:
            needed = _named(refs) | {(lease.dataset, lease.digest) for lease in leases}
            writers = {lease.dataset for lease in leases if lease.kind is LeaseKind.WRITER}
            doomed = [view for view in views.all() if view not in needed and view[0] not in writers]
            held = _inodes(layout, [view for view in views.all() if view in needed])
            blobs = [] if writers else [path for path in _blobs(layout) if path.stat().st_ino not in held]
            size = sum(path.stat().st_size for path in blobs)
            strays = [] if writers else list(_strays(layout))
            if not dry_run:
                for dataset, digest in doomed:
                    views.discard(dataset, digest)
                for path in (*blobs, *strays):
                    layout.discard(path)
        if not dry_run:
            empty_trash(layout)
    names = tuple(f"{dataset}@{digest}" for dataset, digest in doomed)
    return Collection(names, len(blobs), size, tuple(map(_reason, leases)))


def empty_trash(layout: Layout) -> None:
    """Unlink what was taken out of sight, by this process or by one that was killed.

    Raises:
        CacheError: It can't be unlinked.
    """
    with explained("empty the trash", layout.trash), locked(layout.trash):
        for path in layout.trash.iterdir():
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink()


def _named(refs: Refs) -> set[tuple[str, str]]:
    return {(dataset, digest) for dataset in refs.datasets() for digest in refs.of(dataset).values()}


def _blobs(layout: Layout) -> Iterator[Path]:
    return (path for folder in layout.blobs.iterdir() for path in folder.iterdir())


def _strays(layout: Layout) -> Iterator[Path]:
    """What dead writers left: half-built views at once, all else after a day in which nobody went on with it.

    Their word on unsynced blobs goes with those blobs, which no view holds.
    """
    yield from layout.ingest.glob(f"{VIEW}*")
    yield from layout.ingest.glob(f"{UNSYNCED}*")
    yield from (path for path in Blobs(layout).orphans(RESUME_SECONDS) if not path.name.startswith(VIEW))


def _inodes(layout: Layout, views: list[tuple[str, str]]) -> set[int]:
    """The inodes that the views' files share with blobs."""
    return {
        entry.inode()
        for dataset, digest in views
        for folder, _, _ in os.walk(layout.view(dataset, digest))
        for entry in os.scandir(folder)
        if entry.is_file(follow_symlinks=False)
    }


def _reason(lease: Lease) -> str:
    version = f"{lease.dataset}@{lease.digest}" if lease.digest else lease.dataset
    return f"{version}: {lease.kind} {lease.what or lease.id} (pid {lease.pid}) since {lease.since}"
