"""Collecting garbage: views that nothing needs, then blobs that nothing holds.

What a ref of this node names, what is leased and what is pinned stays. A view is taken out of sight under the lock of
the leases, and unlinked after it. A blob is held by its second link: a view's, a draft's, or its claim's; one that has
none is garbage, whoever lives, for a writer that counted on it finds out when it links it, and fetches it again.
"""

from __future__ import annotations

import fcntl
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
from prefect_stagegate.cache.leases import Lease, LeaseKind, Leases, locked
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.refs import Refs
from prefect_stagegate.cache.space import BLOCK
from prefect_stagegate.cache.unsynced import PREFIX as UNSYNCED
from prefect_stagegate.cache.views import DRAFT, Views, remove_tree
from prefect_stagegate.cache.volume import require_locks, takes_links
from prefect_stagegate.trees import walk_folders
from prefect_stagegate.unreadable import Unreadable, UnreadableRecords

RESUME_SECONDS = 24 * 3600
"""How long a half-fetched object waits for a run that resumes it."""
DRAFT_SECONDS = 60
"""How long a draft may be without its lock: it is made before it is locked."""

BLOB_AND_VIEW = 2
"""Links of a blob that one view holds."""

View = tuple[str, str]
"""Dataset and digest."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection took, or would take."""

    versions: tuple[str, ...]
    """`dataset@sha256:…` of the views."""
    blobs: int
    bytes: int
    """Bytes of those blobs: what the volume gets back."""
    kept: tuple[str, ...] = field(default=())
    """Why things stay that no ref names, one line each: leases, pins, and drafts that are too young to be told dead."""
    unreadable: tuple[Unreadable, ...] = ()
    """The node's refs and leases that can't be read. What they may name stays."""


def collect(
    layout: Layout,
    *,
    dry_run: bool = False,
    enough: int | None = None,
    own: str = "",
    may_go: Callable[[str, str], bool] = lambda dataset, digest: True,  # noqa: ARG005
) -> Collection:
    """Remove what no ref, lease or pin needs, those versions first that were used least recently.

    The views of a dataset that is being written stay: one of them may be what its writer just made, and no ref names
    it yet. A writer who needs room has made none yet.

    Args:
        layout: The cache.
        dry_run: Tell what would go, and remove nothing.
        enough: Stop taking versions when so many bytes are freed; None takes all.
        own: The lease of a writer who collects to make room: its dataset's earlier versions may go.
        may_go: Asked about each version before it goes, by dataset and digest; it may take long.

    Raises:
        CacheError: The cache can't be changed, or lies where locks don't tell who uses it.
    """
    with explained("collect garbage", layout.root):
        require_locks(layout.root, layout.trash)
        if dry_run:
            return _foretell(layout, own, may_go)
        empty_trash(layout)
        _remove_strays(layout)  # before the blobs are looked at, of which they hold some
        blobs, size = _sweep(layout)
        gone, freed = [], size
        unreadable = UnreadableRecords()
        with Leases(layout).frozen(unreadable) as leases:  # which also removes those of the dead
            unneeded = _oldest_first(layout, _Needs(layout, _others(leases, own), unreadable))
        for view in unneeded:
            if enough is not None and freed >= enough:
                break
            if may_go(*view) and (held := _discard(layout, view, own)) is not None:
                gone.append("@".join(view))
                freed += held
        empty_trash(layout)
        more, rest = _sweep(layout)
        return Collection(tuple(gone), blobs + more, size + rest, _reasons(layout, own), unreadable.all)


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


class _Needs:
    """What this node's refs and some of its leases need.

    A ref that can't be read may name any version of its dataset, and a lease any version of all.
    """

    def __init__(self, layout: Layout, leases: list[Lease], unreadable: UnreadableRecords) -> None:
        self._refs, self._leases, self._unreadable = Refs(layout), leases, unreadable
        self._everything = bool(unreadable.all)
        self._named: dict[str, set[str] | None] = {}

    def has(self, view: View) -> bool:
        """Whether a view is needed, as far as anybody can tell."""
        dataset, digest = view
        if dataset not in self._named:
            self._named[dataset] = self._read(dataset)
        named = self._named[dataset]
        if self._everything or named is None or digest in named:
            return True
        return any(lease.keeps(dataset, digest) for lease in self._leases)

    def _read(self, dataset: str) -> set[str] | None:
        """The versions that the refs of a dataset name; None when one of them can't be read."""
        bad = UnreadableRecords()
        named = set(self._refs.of(dataset, bad).values())
        self._unreadable.update(bad)
        return None if bad.all else named


def _oldest_first(layout: Layout, needs: _Needs) -> list[View]:
    """The views that nothing needs now, the least recently used first."""
    views = Views(layout)
    unneeded = [view for view in views.all() if not needs.has(view)]
    return sorted(unneeded, key=lambda view: _used(views, view))


def _used(views: Views, view: View) -> float:
    try:
        return views.used(*view)
    except FileNotFoundError:
        return 0.0  # another collection has it


def _others(leases: list[Lease], own: str) -> list[Lease]:
    return [lease for lease in leases if lease.id != own]


def _discard(layout: Layout, view: View, own: str) -> int | None:
    """Take a view out of sight; returns the bytes of blobs that only it held, None when somebody needs it."""
    unreadable = UnreadableRecords()
    with Leases(layout).frozen(unreadable) as leases:
        if _Needs(layout, _others(leases, own), unreadable).has(view):
            return None
        try:
            hidden = Views(layout).discard(*view)
        except FileNotFoundError:
            return None  # another collection has it
    return sum(found.st_blocks * BLOCK for _, found in _files(hidden) if found.st_nlink == BLOB_AND_VIEW)


def _sweep(layout: Layout) -> tuple[int, int]:
    """Unlink the blobs that nothing holds; returns how many there were, and their bytes."""
    blobs = size = 0
    if _counted_on(layout):
        return 0, 0
    for path, found in chain(_files(layout.blobs), _rotten(layout)):
        if found.st_nlink == 1:
            with suppress(FileNotFoundError):
                path.unlink()
                blobs, size = blobs + 1, size + found.st_blocks * BLOCK
    Quarantine(layout).tidy()
    return blobs, size


def _counted_on(layout: Layout) -> bool:
    """Whether blobs without a second link may be needed: a writer lives, and this volume takes no links."""
    unreadable = UnreadableRecords()
    leases = Leases(layout).live(unreadable)
    writing = bool(unreadable.all) or any(lease.kind is LeaseKind.WRITER for lease in leases)
    return writing and not takes_links(layout.trash)


def _foretell(layout: Layout, own: str, may_go: Callable[[str, str], bool]) -> Collection:
    """What a collection would take, by the links that would go."""
    unreadable = UnreadableRecords()
    needs = _Needs(layout, _others(Leases(layout).live(unreadable), own), unreadable)
    gone = [view for view in _oldest_first(layout, needs) if may_go(*view)]
    counted_on = _counted_on(layout)
    shared: Counter[int] = Counter()
    for left in (layout.trash, *_strays(layout)):  # these go first, as a collection that was killed left them
        shared.update(found.st_ino for _, found in _files(left) if found.st_nlink > 1)
    blobs = size = 0
    blobs_first = [(chain(_files(layout.blobs), _rotten(layout)), 0)]
    for files, links in chain(blobs_first, ((_files(layout.view(*view)), 1) for view in gone)):
        for _, found in files:
            gone_links = links or shared[found.st_ino]
            if links and found.st_nlink > BLOB_AND_VIEW:
                shared[found.st_ino] += 1
                gone_links = shared[found.st_ino]
            if found.st_nlink == gone_links + 1 and not counted_on:
                blobs, size = blobs + 1, size + found.st_blocks * BLOCK
    return Collection(tuple(map("@".join, gone)), blobs, size, _reasons(layout, own), unreadable.all)


def _rotten(layout: Layout) -> Iterator[tuple[Path, os.stat_result]]:
    """The blobs in quarantine: there is no more to them than to others, once no view is left that has them."""
    for path in Quarantine(layout).files():
        with suppress(FileNotFoundError):
            yield path, path.lstat()


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a folder; or the one that `root` is."""
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
    if any(layout.ingest.glob(f"{UNSYNCED}*")):
        Blobs(layout).sync()
    empty_trash(layout)


def _strays(layout: Layout) -> Iterator[Path]:
    """What dead writers left: their drafts, and objects that nobody went on with for a day."""
    yield from filter(_abandoned, layout.ingest.glob(f"{DRAFT}*"))
    for path in Blobs(layout).orphans(RESUME_SECONDS):
        if not path.name.startswith((DRAFT, UNSYNCED)):
            yield path


def _abandoned(draft: Path) -> bool:
    """Whether a draft's maker is gone, by its lock; a young one may not be locked yet."""
    try:
        return _is_unlocked(draft) and not _is_young(draft)
    except FileNotFoundError:
        return False


def _is_young(draft: Path) -> bool:
    return time.time() - draft.stat().st_mtime < DRAFT_SECONDS


def _is_unlocked(draft: Path) -> bool:
    descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _reasons(layout: Layout, own: str) -> tuple[str, ...]:
    leases = map(_reason, _others(Leases(layout).live(UnreadableRecords()), own))
    return (*leases, *_young_drafts(layout))


def _young_drafts(layout: Layout) -> Iterator[str]:
    for draft in sorted(layout.ingest.glob(f"{DRAFT}*")):
        with suppress(FileNotFoundError):
            if _is_young(draft) and _is_unlocked(draft):
                told = f"a draft that nobody holds, perhaps of a stager that was killed in the last {DRAFT_SECONDS} s"
                yield f"ingest/{draft.name}: {told}; a later collection takes it"


def _reason(lease: Lease) -> str:
    version = f"{lease.dataset}@{lease.digest}" if lease.digest else lease.dataset
    return f"{version}: {lease}"
