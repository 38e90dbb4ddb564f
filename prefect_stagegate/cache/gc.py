"""Collecting garbage: views that nothing needs, then blobs that nothing holds.

Versions that a ref of this node names, that are leased or that are pinned stay. A view is moved into the trash under
the lock of the leases, and unlinked after the lock. A blob is held by its second link: a view's, a draft's, or its
claim's. A blob without one is garbage even while writers live: a writer that counted on it notices when it makes its
link, and fetches the bytes again.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from prefect_stagegate.cache.blobs import Blobs
from prefect_stagegate.cache.layout import Layout, explained
from prefect_stagegate.cache.leases import Lease, LeaseKind, Leases, is_locked, locked, require_locks, takes_links
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.ref_copies import Refs
from prefect_stagegate.cache.space import BLOCK
from prefect_stagegate.cache.unsynced import PREFIX as UNSYNCED
from prefect_stagegate.cache.views import DRAFT, Views, remove_tree
from prefect_stagegate.durable import walk_folders
from prefect_stagegate.unreadable import Unreadable, UnreadableRecords

RESUME_SECONDS = 24 * 3600
"""How long a half-fetched object is kept for a run that resumes it."""
DRAFT_SECONDS = 60
"""How long a draft without a lock is kept: a draft is locked only after it was made."""

BLOB_AND_VIEW = 2
"""Links of a blob that only one view holds."""

View = tuple[str, str]
"""Dataset and digest."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection removed, or would remove."""

    versions: tuple[str, ...]
    """`dataset@sha256:…` of the views."""
    blobs: int
    bytes: int
    """Bytes of those blobs, which the volume gets back."""
    kept: tuple[str, ...] = field(default=())
    """Why things stay that no ref names, one line each: leases, pins, and drafts too young to count as dead."""
    unreadable: tuple[Unreadable, ...] = ()
    """The node's refs and leases that can't be read. The versions that they may name stay."""


def collect(
    layout: Layout,
    *,
    dry_run: bool = False,
    enough: int | None = None,
    writer_id: str = "",
    may_go: Callable[[str, str], bool] = lambda dataset, digest: True,  # noqa: ARG005
) -> Collection:
    """Remove what no ref, lease or pin needs; the least recently used versions go first.

    The views of a dataset that is being written stay: its writer may just have made one that no ref names yet. A writer
    that makes room has made none yet.

    Args:
        layout: The cache.
        dry_run: Return what would go, and remove nothing.
        enough: Stop removing versions when so many bytes are freed; None removes all.
        writer_id: The id of the lease of a writer that makes room. Its dataset's earlier versions may go.
        may_go: Decides about each version, by dataset and digest, before it goes; may take long.

    Raises:
        CacheError: The cache can't be changed, or lies where locks don't tell who uses it.
    """
    with explained("collect garbage", layout.root):
        # Without locks that work, nothing tells which versions are being read.
        require_locks(layout.root, layout.trash)
        if dry_run:
            return _predict(layout, writer_id, may_go)
        # What a killed collection left in the trash goes first, since its links hold blobs.
        empty_trash(layout)
        _remove_strays(layout)  # before the sweep, since they hold blobs
        # What is garbage already may be enough, so it goes before any version.
        blobs, size = _sweep(layout)
        removed, freed = [], size
        unreadable = UnreadableRecords()
        with Leases(layout).frozen(unreadable) as leases:  # removes the leases of dead holders, too
            unneeded = _oldest_first(layout, _Needs(layout, _without(leases, writer_id), unreadable))
        for view in unneeded:
            if enough is not None and freed >= enough:
                break
            # Outside the lock, since `may_go` may take long. `_discard` looks again, under the lock.
            if may_go(*view) and (view_bytes := _discard(layout, view, writer_id)) is not None:
                removed.append("@".join(view))
                freed += view_bytes
        # Only now have the views' blobs lost their links.
        empty_trash(layout)
        more_blobs, more_size = _sweep(layout)
        return Collection(
            tuple(removed), blobs + more_blobs, size + more_size, _reasons(layout, writer_id), unreadable.all
        )


def empty_trash(layout: Layout) -> None:
    """Remove everything from the trash, also what a killed process left there.

    Raises:
        CacheError: It can't be removed.
    """
    with explained("empty the trash", layout.trash), locked(layout.trash):
        for path in layout.trash.iterdir():
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink()


class _Needs:
    """The versions that this node's refs and the given leases need.

    An unreadable ref may name any version of its dataset; an unreadable lease may name any version at all.
    """

    def __init__(self, layout: Layout, leases: list[Lease], unreadable: UnreadableRecords) -> None:
        self._refs, self._leases, self._unreadable = Refs(layout), leases, unreadable
        self._everything = bool(unreadable.all)
        self._digests: dict[str, set[str] | None] = {}

    def has(self, view: View) -> bool:
        """Whether a view is needed, or may be."""
        dataset, digest = view
        # Read once for each dataset: a node has many versions of few datasets.
        if dataset not in self._digests:
            self._digests[dataset] = self._read(dataset)
        digests = self._digests[dataset]
        if self._everything or digests is None or digest in digests:
            return True
        return any(lease.keeps(dataset, digest) for lease in self._leases)

    def _read(self, dataset: str) -> set[str] | None:
        """The digests that the refs of a dataset name; None when one of them can't be read."""
        unreadable = UnreadableRecords()
        digests = set(self._refs.of(dataset, unreadable).values())
        self._unreadable.update(unreadable)
        return None if unreadable.all else digests


def _oldest_first(layout: Layout, needs: _Needs) -> list[View]:
    """The views that nothing needs, the least recently used first."""
    views = Views(layout)
    unneeded = [view for view in views.all() if not needs.has(view)]
    return sorted(unneeded, key=lambda view: _used(views, view))


def _used(views: Views, view: View) -> float:
    try:
        return views.used(*view)
    except FileNotFoundError:
        return 0.0  # another collection took it


def _without(leases: list[Lease], writer_id: str) -> list[Lease]:
    return [lease for lease in leases if lease.id != writer_id]


def _discard(layout: Layout, view: View, writer_id: str) -> int | None:
    """Move a view into the trash and return the bytes of blobs that only it held; None when it is needed, or gone."""
    unreadable = UnreadableRecords()
    # While the leases are frozen nobody begins to read, so the view stays unneeded until it is out of sight.
    with Leases(layout).frozen(unreadable) as leases:
        if _Needs(layout, _without(leases, writer_id), unreadable).has(view):
            return None
        try:
            hidden = Views(layout).discard(*view)
        except FileNotFoundError:
            return None  # another collection took it
    # Counted after the lock, since it looks at each file of the view, and new readers wait for the lock.
    return sum(stat.st_blocks * BLOCK for _, stat in _files(hidden) if stat.st_nlink == BLOB_AND_VIEW)


def _sweep(layout: Layout) -> tuple[int, int]:
    """Unlink the blobs that nothing holds; return their number and their bytes."""
    blobs = size = 0
    if _needs_unlinked(layout):
        return 0, 0
    for path, stat in chain(_files(layout.blobs), _rotten(layout)):
        if stat.st_nlink == 1:
            # A writer may count on it just now. It notices when it makes its link, and fetches the bytes again.
            with suppress(FileNotFoundError):
                path.unlink()
                blobs, size = blobs + 1, size + stat.st_blocks * BLOCK
    Quarantine(layout).tidy()
    return blobs, size


def _needs_unlinked(layout: Layout) -> bool:
    """Whether blobs without a second link may be needed: a writer lives, and the volume takes no hard links."""
    unreadable = UnreadableRecords()
    leases = Leases(layout).live(unreadable)
    # A lease that can't be read may be a writer's.
    writing = bool(unreadable.all) or any(lease.kind is LeaseKind.WRITER for lease in leases)
    return writing and not takes_links(layout.trash)


def _predict(layout: Layout, writer_id: str, may_go: Callable[[str, str], bool]) -> Collection:
    """Predict what a collection would remove, by counting the links that would go."""
    unreadable = UnreadableRecords()
    needs = _Needs(layout, _without(Leases(layout).live(unreadable), writer_id), unreadable)
    unneeded = [view for view in _oldest_first(layout, needs) if may_go(*view)]
    needs_unlinked = _needs_unlinked(layout)
    # Links that go, by inode, for blobs with more than one. A collection removes the trash and the strays first.
    links_gone: Counter[int] = Counter()
    for folder in (layout.trash, *_strays(layout)):
        links_gone.update(stat.st_ino for _, stat in _files(folder) if stat.st_nlink > 1)
    blobs = size = 0
    # A view's file takes one link away, a blob's own name none. A blob goes with the last link besides its name.
    blobs_first = [(chain(_files(layout.blobs), _rotten(layout)), 0)]
    for files, links in chain(blobs_first, ((_files(layout.view(*view)), 1) for view in unneeded)):
        for _, stat in files:
            gone = links or links_gone[stat.st_ino]
            if links and stat.st_nlink > BLOB_AND_VIEW:
                links_gone[stat.st_ino] += 1
                gone = links_gone[stat.st_ino]
            if stat.st_nlink == gone + 1 and not needs_unlinked:
                blobs, size = blobs + 1, size + stat.st_blocks * BLOCK
    return Collection(tuple(map("@".join, unneeded)), blobs, size, _reasons(layout, writer_id), unreadable.all)


def _rotten(layout: Layout) -> Iterator[tuple[Path, os.stat_result]]:
    """The blobs in quarantine. They go as other blobs do, when no view links to them any more."""
    for path in Quarantine(layout).files():
        with suppress(FileNotFoundError):
            yield path, path.lstat()


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files below a folder, or `root` itself when it is a file."""
    paths: Iterable[Path] = [root]
    if root.is_dir():
        tree = walk_folders(root, skip=OSError)
        paths = (Path(entry) for _, entries in tree for entry in entries if not entry.is_dir())
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.lstat()


def _remove_strays(layout: Layout) -> None:
    for path in _strays(layout):
        layout.discard(path)
    # Makes the blobs of dead writers durable, and removes their marks.
    if any(layout.ingest.glob(f"{UNSYNCED}*")):
        Blobs(layout).sync()
    empty_trash(layout)


def _strays(layout: Layout) -> Iterator[Path]:
    """What dead writers left: drafts, and claims on objects that no run resumed for a day."""
    if not _is_read_early(layout):
        yield from filter(_abandoned, layout.ingest.glob(f"{DRAFT}*"))
    for path in Blobs(layout).orphans(RESUME_SECONDS):
        if not path.name.startswith((DRAFT, UNSYNCED)):
            yield path


def _is_read_early(layout: Layout) -> bool:
    """Whether somebody reads a version that is not complete: its files may lie in the draft of a job that was killed.

    A lease that can't be read may be such a reader's.
    """
    unreadable, views = UnreadableRecords(), Views(layout)
    readers = (lease for lease in Leases(layout).live(unreadable) if lease.kind is LeaseKind.READER)
    return any(views.path(lease.dataset, lease.digest) is None for lease in readers) or bool(unreadable.all)


def _abandoned(draft: Path) -> bool:
    """Whether a draft's maker is gone, by its lock. A young draft may not be locked yet."""
    try:
        return not is_locked(draft) and not _is_young(draft)
    except FileNotFoundError:
        return False


def _is_young(draft: Path) -> bool:
    return time.time() - draft.stat().st_mtime < DRAFT_SECONDS


def _reasons(layout: Layout, writer_id: str) -> tuple[str, ...]:
    leases = _without(Leases(layout).live(UnreadableRecords()), writer_id)
    held = (f"{'@'.join(filter(None, (lease.dataset, lease.digest)))}: {lease}" for lease in leases)
    return (*held, *_young_drafts(layout))


def _young_drafts(layout: Layout) -> Iterator[str]:
    for draft in sorted(layout.ingest.glob(f"{DRAFT}*")):
        with suppress(FileNotFoundError):
            if _is_young(draft) and not is_locked(draft):
                reason = f"a draft without a lock, perhaps of a stager that was killed in the last {DRAFT_SECONDS} s"
                yield f"ingest/{draft.name}: {reason}; a later collection removes it"
