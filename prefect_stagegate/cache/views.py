"""Views: a read-only tree of one version, whose files are links to blobs. It appears complete, by one rename."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from prefect_stagegate.cache.layout import READ_ONLY_FILE, Layout, explained
from prefect_stagegate.durable import sync_folder, sync_volume
from prefect_stagegate.errors import CacheError
from prefect_stagegate.manifest import path_problem
from prefect_stagegate.model import Entry

log = logging.getLogger(__name__)

FICLONE = 0x40049409
"""Linux's ioctl that makes a file share another's extents: _IOW(0x94, 9, int)."""
_BAD_NAME = {
    errno.EINVAL: "the volume takes no such name",
    errno.EILSEQ: "the volume takes no such name",
    errno.ENAMETOOLONG: "the volume takes no name that is so long",
    errno.EEXIST: "the volume takes it for the name of another entry",
    errno.ENOTDIR: "the volume takes a folder of it for the name of another entry",
}
"""What a volume says to a name that it can't represent."""
_CANT_LINK = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP)


class Views:
    """The versions that lie complete in this cache."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def path(self, dataset: str, digest: str) -> Path | None:
        """Where the version can be read, or None when it isn't here."""
        path = self._layout.view(dataset, digest)
        return path if path.is_dir() else None

    def all(self) -> Iterator[tuple[str, str]]:
        """Every view as (dataset, digest), sorted."""
        for dataset in sorted(self._layout.views.iterdir()):
            for view in sorted(dataset.iterdir()):
                yield dataset.name, f"sha256:{view.name}"

    def publish(self, dataset: str, digest: str, entries: Iterable[Entry]) -> Path:
        """Build the view of a version whose blobs are all here, sync all of it, and let it appear.

        Returns:
            The view's folder. When another process published it first, that one.

        Raises:
            CacheError: The volume refuses; nothing of the view is left visible.
        """
        target = self._layout.view(dataset, digest)
        scratch = self._layout.ingest / f"view-{uuid.uuid4().hex}"
        with explained("build the view", target):
            try:
                self._fill(scratch, entries)
                target.parent.mkdir(mode=0o755, exist_ok=True)
                # One sync of the volume makes the blobs, the links and the folders durable before they can be seen.
                sync_volume(scratch)
                _appear(scratch, target)
                sync_folder(target.parent)
            finally:
                if scratch.exists():
                    remove_tree(scratch)
        return target

    def mend(self, dataset: str, digest: str, entries: Iterable[Entry]) -> None:
        """Put sound blobs in the place of a view's damaged files. Who reads meets the file before or after, never none.

        Raises:
            CacheError: The volume refuses; the other files are mended or as they were.
        """
        view = self._layout.view(dataset, digest)
        scratch = self._layout.ingest / f"view-{uuid.uuid4().hex}"
        with explained("mend the view", view):
            for entry in entries:
                path = view / entry.path
                _place(self._layout.blob_path(entry.digest), str(scratch))
                with _naming(entry.path), _writable(path.parent, view):
                    scratch.replace(path)
                scratch.unlink(missing_ok=True)  # renaming a link to another of the same file does nothing
            sync_volume(view)

    def discard(self, dataset: str, digest: str) -> Path:
        """Take a view out of sight; the caller removes what this returns."""
        view = self._layout.view(dataset, digest)
        view.chmod(0o755)  # a folder that can't be written can't change its parent either
        return self._layout.discard(view)

    def _fill(self, root: Path, entries: Iterable[Entry]) -> None:
        root.mkdir(mode=0o755)
        folders = {""}
        copied = 0
        for entry in entries:
            with _naming(entry.path):
                folder = entry.path.rpartition("/")[0]
                if folder not in folders:
                    (root / folder).mkdir(mode=0o755, parents=True, exist_ok=True)
                    folders.update((folder, *(str(above) for above in PurePosixPath(folder).parents[:-1])))
                copied += _place(self._layout.blob_path(entry.digest), f"{root}/{entry.path}")
        for folder in folders - {""}:
            (root / folder).chmod(0o555)
        if copied:
            log.warning("the volume took no links for %d files of the view, so they were cloned or copied", copied)


class _naming:  # noqa: N801 - used as a statement; a generator would cost as much as the link, for each file
    """Refuse, by its name, a path that must not or can't stand in a view on this volume."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        if problem := path_problem(self._path):
            raise _refused(self._path, problem)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and error.errno in _BAD_NAME:
            raise _refused(self._path, _BAD_NAME[error.errno]) from error


def _refused(path: str, problem: str) -> CacheError:
    return CacheError(
        f"The path {path!r} can't stand in a view: {problem}",
        hint="Rename the object at its source, leave it out by `exclude:`, or choose another volume with --cache.",
        object=path,
    )


@contextmanager
def _writable(folder: Path, view: Path) -> Iterator[None]:
    """Make a folder of a view, with those above it, writable for the block; make it when it is gone."""
    above = [one for one in (folder, *folder.parents) if one.is_relative_to(view)]
    for one in reversed(above):
        one.mkdir(mode=0o755, exist_ok=True)
        one.chmod(0o755)
    try:
        yield
    finally:
        for one in above:
            one.chmod(0o555)


def _place(blob: str, path: str) -> bool:
    """Link `path` to a blob; where links are refused, clone it, else copy it. True when it is no link."""
    try:
        os.link(blob, path)
    except OSError as error:
        if error.errno not in _CANT_LINK:
            raise
        _clone_or_copy(Path(blob), Path(path))
        return True
    return False


def _clone_or_copy(blob: Path, path: Path) -> None:
    with blob.open("rb") as source, path.open("xb") as target:
        try:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
        except OSError:
            shutil.copyfileobj(source, target, 1 << 20)
        os.fchmod(target.fileno(), READ_ONLY_FILE)


def _appear(scratch: Path, target: Path) -> None:
    try:
        scratch.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return  # another process published the same version, which has the same content
    target.chmod(0o555)


def remove_tree(root: Path) -> None:
    """Remove a tree that may hold read-only folders."""
    for folder, _, _ in os.walk(root):
        Path(folder).chmod(0o700)
    shutil.rmtree(root)
