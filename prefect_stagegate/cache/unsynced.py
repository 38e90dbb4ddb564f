"""Blobs that are written but not synced yet, which a power cut may spoil.

    ingest/unsynced-<boot>-<id>     a writer's mark: from before a writer's first unsynced blob until they are synced

A file system may keep a file's name and size through a power cut and lose its bytes. So a writer leaves a durable mark
before it makes blobs whose bytes are only in memory. Whoever opens the cache after another boot and finds the mark
reads every blob again that no view holds; a view's blobs are safe, since it appears only after a sync.
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

from prefect_stagegate.cache.blob_verification import is_blob
from prefect_stagegate.cache.layout import GROUP_FILE, PRIVATE_FILE, Layout, explained
from prefect_stagegate.cache.leases import is_locked, locked
from prefect_stagegate.durable import UNKNOWN_BOOT, OpenVolume, boot_id, sync_folder, sync_volume, walk_folders

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
        # Opened before the first blob is reused: its sync reports every write that fails from here on, by any process.
        with explained("open the volume", layout.blobs):
            self._volume = OpenVolume(layout.blobs)

    def add(self, digest: str) -> None:
        """Note a blob that is about to become visible and is not synced.

        Raises:
            OSError: The mark can't be written; the blob must not become visible.
        """
        with self._lock:
            self._mark = self._mark or _Mark(self._layout)
            self._digests.add(digest)

    def sync(self) -> None:
        """Make all added blobs durable, and those of dead writers.

        Raises:
            OSError: The volume failed to write. All added blobs were moved into the trash.
        """
        with self._lock:
            # Blobs that are added from here on may not be part of this sync.
            added, self._digests = self._digests, set()
        # Listed before the sync, which covers only blobs that were written by now.
        dead = [path for path in _of_dead(self._layout) if _boot(path) == boot_id()]
        try:
            self._volume.sync()
        except OSError:
            # A blob that was not written may look whole until it leaves memory, and no later sync would report it.
            with self._lock:
                self._discard(added | self._digests)
            raise
        # Blobs that were added during the sync still need the mark.
        with self._lock:
            if not self._digests:
                self._clear_mark()
        # The sync made the blobs of dead writers durable, too.
        for path in dead:
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Move all added blobs into the trash."""
        with self._lock:
            self._discard(self._digests)

    def forget(self) -> None:
        """Forget all added blobs, which another process made durable."""
        with self._lock:
            self._digests.clear()
            self._clear_mark()

    def _clear_mark(self) -> None:
        if self._mark:
            self._mark.clear()
            self._mark = None

    def _discard(self, digests: set[str]) -> None:
        for digest in digests:
            with suppress(FileNotFoundError):
                self._layout.discard(self._layout.blob(digest))


class _Mark:
    """The mark that a writer's blobs are not synced. It stays until it is cleared, whatever ends the writer."""

    def __init__(self, layout: Layout) -> None:
        name = f"{PREFIX}{boot_id()}-{uuid.uuid4().hex}"
        self._path, new = layout.ingest / name, layout.ingest / f"new-{name}"
        self._file = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, PRIVATE_FILE)
        self._close = weakref.finalize(self, os.close, self._file)
        layout.share(self._file, GROUP_FILE)
        # Held until the writer ends. Locked under another name, since a mark without a lock is that of a dead writer,
        # which the next sync of any process removes.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        new.rename(self._path)
        # Durable before the first of its blobs is visible, else a power cut could take the mark and spoil the blobs.
        os.fsync(self._file)
        sync_folder(layout.ingest)

    def clear(self) -> None:
        """Remove the mark, since the blobs are synced."""
        self._path.unlink(missing_ok=True)
        self._close()


def read_again(layout: Layout) -> None:
    """After a boot that ended with unsynced blobs, hash them again, and discard those that don't match their names.

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
            # The discards must be durable before the marks go.
            sync_volume(layout.root)
            for mark in marks:
                mark.unlink(missing_ok=True)


def _doubtful(layout: Layout) -> Iterator[Path]:
    """The marks of writers that died in another boot, or in an unknown one."""
    return (path for path in _of_dead(layout) if _boot(path) == UNKNOWN_BOOT or _boot(path) != boot_id())


def _of_dead(layout: Layout) -> Iterator[Path]:
    """The marks of writers that died, in whatever boot."""
    for path in layout.ingest.glob(f"{PREFIX}*"):
        # One that this user may not open yet is being made by another user of a shared cache.
        with suppress(FileNotFoundError, PermissionError):
            if not is_locked(path):
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
