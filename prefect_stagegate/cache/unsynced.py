"""Which blobs a power cut may have spoilt: those that were written, and not synced yet.

    ingest/unsynced-<boot>-<id>     stands from before a writer's first unsynced blob until they are synced

A file system may keep a file's name and size through a power cut and lose its bytes. So a writer says, durably, that it
is about to make blobs whose bytes are only in memory, and whoever opens the cache after another boot and finds that
word reads every blob again that no view holds: a view appears only after a sync.
"""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prefect_stagegate.cache.ingest import Claim
from prefect_stagegate.cache.layout import GROUP_FILE, PRIVATE_FILE, Layout, explained
from prefect_stagegate.cache.leases import locked
from prefect_stagegate.cache.verify import is_blob
from prefect_stagegate.durable import UNKNOWN_BOOT, Volume, boot_id, sync_folder, sync_volume
from prefect_stagegate.trees import walk_folders

PREFIX = "unsynced-"


class Unsynced:
    """The blobs of one writer that are not synced yet. Safe to use from many threads.

    Raises:
        CacheError: The volume can't be opened.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._digests: set[str] = set()
        self._mark: _Mark | None = None
        # From here on: also what others failed to write may be reused.
        with explained("open the volume", layout.blobs):
            self._volume = Volume(layout.blobs)

    def add(self, digest: str) -> None:
        """A blob is about to be seen whose bytes are not synced.

        Raises:
            OSError: The volume refuses; the blob must not be made.
        """
        with self._lock:
            self._mark = self._mark or _Mark(self._layout)
            self._digests.add(digest)

    def sync(self) -> None:
        """Make all blobs durable that were added, and those of dead writers.

        Raises:
            OSError: The volume failed to write something. Read back it may look whole until it leaves memory, and no
                later sync would tell, so all these blobs were taken out of sight.
        """
        with self._lock:
            added, self._digests = self._digests, set()
        dead = list(_of_this_boot(self._layout))
        try:
            self._volume.sync()
        except OSError:
            with self._lock:
                self._discard(added | self._digests)
            raise
        with self._lock:
            if self._mark and not self._digests:
                self._mark.clear()
                self._mark = None
        for path in dead:
            path.unlink(missing_ok=True)

    def _discard(self, digests: set[str]) -> None:
        for digest in digests:
            with suppress(FileNotFoundError):
                self._layout.discard(self._layout.blob(digest))


class _Mark:
    """The word that a writer's blobs are not synced. It lasts until it is cleared, whatever ends the writer."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.ingest / f"{PREFIX}{boot_id()}-{uuid.uuid4().hex}"
        self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, PRIVATE_FILE)
        layout.share(self._file, GROUP_FILE)
        self._close = weakref.finalize(self, os.close, self._file)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fsync(self._file)
        sync_folder(layout.ingest)

    def clear(self) -> None:
        """The blobs are synced."""
        self._path.unlink(missing_ok=True)
        self._close()


def read_again(layout: Layout) -> None:
    """After a boot that ended with unsynced blobs, take those out of sight that are not what their names say.

    Raises:
        CacheError: The cache can't be read or changed.
    """
    with explained("read the blobs again", layout.blobs):
        if not any(_doubtful(layout)):
            return
        with locked(layout.ingest):
            marks = list(_doubtful(layout))
            if not marks:
                return  # another process did it while this one waited
            held = _held(layout)
            for path in layout.blobs.glob("*/*"):
                if not _is_whole(path, held):
                    layout.discard(path)
            sync_volume(layout.root)
            for mark in marks:
                mark.unlink(missing_ok=True)


def _doubtful(layout: Layout) -> Iterator[Path]:
    """The marks of writers that died in another boot, or nobody knows in which."""
    return (path for path in _of_dead(layout) if _boot(path) == UNKNOWN_BOOT or _boot(path) != boot_id())


def _of_this_boot(layout: Layout) -> Iterator[Path]:
    """The marks of writers that died in this boot, whose blobs the next sync makes durable too."""
    return (path for path in _of_dead(layout) if _boot(path) == boot_id())


def _of_dead(layout: Layout) -> Iterator[Path]:
    for path in layout.ingest.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):
            if not Claim.is_taken(str(path)):
                yield path


def _boot(mark: Path) -> str:
    return mark.name.removeprefix(PREFIX).rpartition("-")[0]


def _is_whole(blob: Path, held: set[int]) -> bool:
    try:
        return blob.lstat().st_ino in held or is_blob(str(blob), f"blake3:{blob.name}")
    except FileNotFoundError:
        return True  # collected meanwhile
    except OSError:
        return False


def _held(layout: Layout) -> set[int]:
    """The inodes of the files of all views."""
    return {
        entry.inode()
        for _, entries in walk_folders(layout.views)
        for entry in entries
        if entry.is_file(follow_symlinks=False)
    }
