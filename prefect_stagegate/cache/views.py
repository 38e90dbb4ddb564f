"""Views: read-only trees of versions, whose files are links to blobs. A view appears complete, by one rename."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prefect_stagegate.cache.layout import GROUP_DIR, READ_ONLY_FILE, Layout, explained
from prefect_stagegate.durable import Durability, sync_folder, sync_volume, walk_folders
from prefect_stagegate.errors import BlobVanished, CacheError
from prefect_stagegate.model import Entry, is_name
from prefect_stagegate.model.manifest import path_problem
from prefect_stagegate.units import count_text

log = logging.getLogger(__name__)

DRAFT = "view-"
"""The prefix of drafts' names in `ingest/`."""
_NAME = re.compile(r"[0-9a-f]{64}")
"""A view's name is the version's digest. Folders with other names are not the cache's own."""
SEALED = ".sealed"
FICLONE = 0x40049409
"""Linux's ioctl that makes a file share another's extents: _IOW(0x94, 9, int)."""
_BAD_NAME = {
    errno.EINVAL: "the volume does not allow this name",
    errno.EILSEQ: "the volume does not allow this name",
    errno.ENAMETOOLONG: "the volume does not allow a name this long",
    errno.EEXIST: "the volume treats it as the name of another entry",
    errno.ENOTDIR: "the volume treats a folder of it as the name of another entry",
}
"""The errors for names that a volume can't represent."""
_CANT_LINK = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP)


class Draft:
    """A view that is being built. Its links hold blobs: a blob with a second link is never collected.

    The folder is locked while its maker lives, so that a collection recognizes drafts of dead makers.
    """

    def __init__(self, layout: Layout, durability: Durability) -> None:
        self._layout = layout
        self._durability = durability
        self._root = layout.ingest / f"{DRAFT}{uuid.uuid4().hex}"
        self._root_text = str(self._root)
        self._lock = -1
        self._folders = {""}
        self._copied = 0

    def hold(self, entry: Entry) -> None:
        """Link one entry's blob, so that the blob stays until the draft is published or closed.

        Raises:
            BlobVanished: The blob isn't in the cache.
            CacheError: The volume refuses.
        """
        with explained("build a view", self._root):
            self._begin()
            self._link(entry)

    def publish(self, dataset: str, digest: str, entries: Iterable[Entry]) -> Path:
        """Link the entries that are not held yet, sync the volume, and make the view visible by one rename.

        Returns:
            The view's folder, which another process may have published first.

        Raises:
            BlobVanished: A collection took one of the blobs; no view is visible.
            CacheError: The volume refuses; no view is visible.
        """
        target = self._layout.view(dataset, digest)
        with explained("build the view", target):
            self._begin()
            # Neighbours are mostly alike, and a look is cheaper than a link that fails.
            held = False
            for entry in entries:
                held = (held and self._is_held(entry)) or not self._link(entry)
            # All folders are closed before the rename: nobody may write to a visible view. The root is closed after it,
            # since a read-only folder can't be renamed.
            for folder in self._folders - {""}:
                _close(self._layout, self._root / folder)
            target.parent.mkdir(mode=0o755, exist_ok=True)
            self._layout.share(target.parent, GROUP_DIR)
            # One sync of the volume makes the blobs, the links and the folders durable before they are visible.
            if self._durability is not Durability.NONE:
                sync_volume(self._root)
            _publish(self._layout, self._root, target)
            # So that the rename survives a power cut, too.
            sync_folder(target.parent)
            seal_view(target)
        if self._copied:
            log.warning(
                "the volume refused hard links, so %s of the view were cloned or copied",
                count_text(self._copied, "file"),
            )
        return target

    def repair(self, dataset: str, digest: str, entries: Iterable[Entry]) -> None:
        """Replace a view's damaged files by links to sound blobs.

        Raises:
            BlobVanished: A collection took one of the blobs.
            CacheError: The volume refuses. Each other file is repaired or as it was.
        """
        view = self._layout.view(dataset, digest)
        with explained("repair the view", view):
            self._begin()
            for entry in entries:
                path = view / entry.path
                self._link(entry)
                # By a rename, so that a reader opens the old file or the new one, and never misses it.
                with _explain_path(entry.path), _writable(self._layout, path.parent, view):
                    (self._root / entry.path).replace(path)
            # Once, after all renames. A damaged file that a power cut brings back is found by the next verification.
            sync_volume(view)
            seal_view(view)

    def folder(self) -> Path:
        """Its folder, for other files that are to go with it; such a draft is not published."""
        with explained("make a folder", self._root):
            self._begin()
        return self._root

    def close(self) -> None:
        """Remove the draft, unless it was published."""
        if self._lock < 0:
            return
        os.close(self._lock)
        self._lock = -1
        with suppress(OSError):  # the draft is unlocked, so a collection removes what is left
            if self._root.exists():
                remove_tree(self._root)

    def _begin(self) -> None:
        if self._lock < 0:
            self._root.mkdir(mode=0o755)
            self._layout.share(self._root, GROUP_DIR)
            # Locked while its maker lives: a collection takes drafts without a lock.
            self._lock = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _is_held(self, entry: Entry) -> bool:
        """Whether the entry is held; False also on errors, which `_link` then raises."""
        if path_problem(entry.path):
            return False
        try:
            return _holds(f"{self._root_text}/{entry.path}", self._layout.blob_path(entry.digest))
        except OSError:
            return False

    def _link(self, entry: Entry) -> bool:
        """Link an entry's blob; False when it was held already."""
        path = f"{self._root_text}/{entry.path}"
        with _explain_path(entry.path):
            folder = entry.path.rpartition("/")[0]
            if folder not in self._folders:
                self._make_folder(folder)
            blob = self._layout.blob_path(entry.digest)
            try:
                self._copied += _place(blob, path)
            except FileNotFoundError as error:
                raise BlobVanished(
                    f"The bytes of {entry.path} are no longer in the cache {self._layout.root}",
                    hint="A garbage collection removed them. Run the command again: it fetches them again.",
                    object=entry.path,
                ) from error
            except FileExistsError:
                if _holds(path, blob):
                    return False
                if not _has_this_name(path):
                    raise
                # The held blob rotted meanwhile and is in quarantine; a sound one has its name by now.
                os.unlink(path)  # noqa: PTH108
                return self._link(entry)
        return True

    def _make_folder(self, folder: str) -> None:
        (self._root / folder).mkdir(mode=0o755, parents=True, exist_ok=True)
        made = {folder, *(str(parent) for parent in PurePosixPath(folder).parents[:-1])} - self._folders
        for path in made:
            self._layout.share(self._root / path, GROUP_DIR)
        self._folders |= made


class Views:
    """The versions that are complete in this cache."""

    def __init__(self, layout: Layout, durability: Durability = Durability.BATCH) -> None:
        self._layout = layout
        self._durability = durability

    def path(self, dataset: str, digest: str) -> Path | None:
        """The folder where the version can be read; None when it isn't here.

        Raises:
            CacheError: The volume doesn't tell.
        """
        path = self._layout.view(dataset, digest)
        with explained("look for the view", path):
            return path if path.is_dir() else None

    def all(self) -> list[tuple[str, str]]:
        """Every view as (dataset, digest), sorted.

        Raises:
            CacheError: They can't be listed.
        """
        with explained("list the views", self._layout.views):
            # Other names are not the cache's own: `lost+found`, or what a backup put there.
            folders = sorted(self._layout.entries(self._layout.views))
            names = [folder.name for folder in folders if is_name(folder.name) and folder.is_dir()]
        return [(dataset, digest) for dataset in names for digest in self.of(dataset)]

    def of(self, dataset: str) -> list[str]:
        """The digests of one dataset's views, sorted.

        Raises:
            CacheError: They can't be listed.
        """
        folder = self._layout.views / dataset
        with explained("list the views", folder):
            views = folder.iterdir() if folder.is_dir() else ()
            return sorted(f"sha256:{view.name}" for view in views if _NAME.fullmatch(view.name))

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A draft of a view, which is removed at the end of the block unless it was published."""
        draft = Draft(self._layout, self._durability)
        try:
            yield draft
        finally:
            draft.close()

    def publish(self, dataset: str, digest: str, entries: Iterable[Entry]) -> Path:
        """Build and publish the view of a version whose blobs are all here; see `Draft.publish`."""
        with self.draft() as draft:
            return draft.publish(dataset, digest, entries)

    def used(self, dataset: str, digest: str) -> float:
        """The time when a version was last read or staged, in seconds since the epoch."""
        return self._layout.view(dataset, digest).stat().st_mtime

    def touch(self, dataset: str, digest: str) -> None:
        """Note that a version is used now, so that it is among the last to be evicted."""
        with suppress(OSError):  # a cache on a read-only volume can be used, too
            os.utime(self._layout.view(dataset, digest))

    def remove(self, dataset: str, digest: str, paths: Iterable[str]) -> None:
        """Remove files that somebody put into a view."""
        view = self._layout.view(dataset, digest)
        for path in (view / name for name in paths):
            with explained("remove a file from the view", path), _writable(self._layout, path.parent, view):
                path.unlink(missing_ok=True)

    def discard(self, dataset: str, digest: str) -> Path:
        """Move a view into the trash; the caller removes the returned folder."""
        view = self._layout.view(dataset, digest)
        if not self._layout.shared:
            view.chmod(0o755)  # a read-only folder can't be moved to another parent
        view.with_suffix(SEALED).unlink(missing_ok=True)
        return self._layout.discard(view)


@dataclass(slots=True)
class _explain_path(AbstractContextManager[object]):  # noqa: N801 - as `explained` is
    """Refuse a path that must not, or on this volume can't, be in a view. The error names the path."""

    path: str

    def __enter__(self) -> None:
        if problem := path_problem(self.path):
            raise _refused(self.path, problem)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and error.errno in _BAD_NAME:
            raise _refused(self.path, _BAD_NAME[error.errno]) from error


def _refused(path: str, problem: str) -> CacheError:
    return CacheError(
        f"The path {path!r} can't be in a view: {problem}",
        hint="Rename the object at its source, leave it out by `exclude:`, or choose another volume with --cache.",
        object=path,
    )


@contextmanager
def _writable(layout: Layout, folder: Path, view: Path) -> Iterator[None]:
    """Create the missing folders of a view, and make its folders writable while the block runs."""
    folders = [path for path in (folder, *folder.parents) if path.is_relative_to(view)]
    # The outermost first: nothing can be created in a read-only folder.
    for path in reversed(folders):
        path.mkdir(mode=0o755, exist_ok=True)
        if not layout.shared:
            path.chmod(0o755)
    try:
        yield
    finally:
        for path in folders:
            _close(layout, path)


def _place(blob: str, path: str) -> bool:
    """Link `path` to a blob; where links are refused, clone or copy the blob. True for a clone or copy."""
    try:
        os.link(blob, path)
    except OSError as error:
        if error.errno not in _CANT_LINK:
            raise
        _clone_or_copy(Path(blob), Path(path))
        return True
    return False


def _holds(path: str, blob: str) -> bool:
    """Whether a draft's file is a link to the blob, or a copy of it where links are refused."""
    file, target = os.lstat(path), os.lstat(blob)
    return file.st_ino == target.st_ino or (file.st_nlink == 1 and file.st_size == target.st_size)


def _has_this_name(path: str) -> bool:
    """Whether a file has exactly this name. A volume may take another name for it, by case or by Unicode's forms."""
    return Path(path) in Path(path).parent.iterdir()


def _clone_or_copy(blob: Path, path: Path) -> None:
    with blob.open("rb") as source, path.open("xb") as target:
        try:
            # A clone shares the blob's bytes on the disk, where the file system can do that.
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
        except OSError:
            shutil.copyfileobj(source, target, 1 << 20)
        os.fchmod(target.fileno(), READ_ONLY_FILE)


def _close(layout: Layout, folder: Path) -> None:
    """Make a folder of a view read-only; in a shared cache it stays writable, so that the group can discard it."""
    if layout.shared:
        layout.share(folder, GROUP_DIR)
    else:
        folder.chmod(0o555)


def _publish(layout: Layout, scratch: Path, target: Path) -> None:
    try:
        scratch.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return  # another process published the same version, which has the same content
    _close(layout, target)


def seal_view(view: Path) -> None:
    """Make a view's seal, a file beside it: what is written to the view's files later is newer."""
    with suppress(OSError):  # a cache that can only be read
        view.with_suffix(SEALED).unlink(missing_ok=True)  # it may be another user's
        view.with_suffix(SEALED).touch()


def sealed_at(view: Path) -> int:
    """When a view was sealed, in nanoseconds; for one of an earlier release, its last use."""
    try:
        return view.with_suffix(SEALED).lstat().st_mtime_ns
    except FileNotFoundError:
        return view.lstat().st_ctime_ns


def remove_tree(root: Path) -> None:
    """Remove a tree that may hold read-only folders."""
    for folder, _ in walk_folders(root):
        # Nothing can be removed from a read-only folder.
        with suppress(PermissionError):  # another user's of a shared cache, which the group may write
            Path(folder).chmod(0o700)
    shutil.rmtree(root)
