"""The blobs: content by digest. Every visible blob is complete and was verified.

The order of steps guarantees that, wherever a process is killed:

    claim → write and hash → check size and digest → read-only → (fsync) → link to blobs → remember → drop the claim

A large blob is synced by itself before it is linked; small ones share one sync of the volume at the end of a transfer,
before anything names them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prefect_stagegate.cache.blob_verification import check_blob, is_blob
from prefect_stagegate.cache.ingest import Claim
from prefect_stagegate.cache.layout import (
    GROUP_DIR,
    GROUP_FILE,
    PRIVATE_DIR,
    READ_ONLY_FILE,
    Layout,
    cache_error,
    explained,
)
from prefect_stagegate.cache.leases import Holder, holder_of
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.space import BLOCK
from prefect_stagegate.cache.unsynced import PREFIX as UNSYNCED
from prefect_stagegate.cache.unsynced import Unsynced
from prefect_stagegate.durable import Durability, sync_folder
from prefect_stagegate.errors import ChecksumMismatch

_WRITABLE_BY_OTHERS = 0o022
_LINKS_REFUSED = (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


class Blobs:
    """The content of one cache. Safe to use from many threads and processes."""

    def __init__(self, layout: Layout, durability: Durability = Durability.BATCH) -> None:
        self._layout = layout
        self._durability = durability
        self._ingest = str(layout.ingest)
        self._folders: set[str] = set()
        # Root could change any file anyway, and whoever shares a cache trusts its owner.
        self._trusted = {0, os.geteuid(), layout.root.stat().st_uid}
        self._unsynced = Unsynced(layout)

    def holds(self, digest: str, size: int) -> bool:
        """Whether the cache has a blob, by its digest and size."""
        path = self._layout.blob_path(digest)
        try:
            # Without following links: a link in a blob's place is no blob.
            mode, _, _, _, owner, _, length, *_ = os.lstat(path)
            if not stat.S_ISREG(mode) or length != size:
                return False
            # A blob of this user, of root or of the cache's owner was hashed when it came. One that another user of a
            # shared cache owns, or may write to, is hashed now.
            believed = owner in self._trusted and not mode & _WRITABLE_BY_OTHERS
            return believed or is_blob(path, digest)
        except OSError:
            return False

    def claim(self, *identity: str) -> Claim | None:
        """Claim the right to store one object; None while another thread or process has it.

        Args:
            identity: Words that identify the object at its source. The same words mean the same bytes.

        Raises:
            CacheError: The cache can't be written.
        """
        try:
            claim = Claim.take(self._claimed(identity))
            if claim:
                # Others of the group must open the file to see whether it is claimed.
                self._layout.share(claim.file, GROUP_FILE)
        except OSError as error:
            raise cache_error(error, "begin to store an object", self._layout.ingest) from error
        return claim

    def claim_state(self, *identity: str) -> tuple[int, ...]:
        """A value that changes whenever somebody writes to a claim's file; empty when the file is gone.

        Raises:
            CacheError: The file can't be looked at.
        """
        try:
            status = os.lstat(self._claimed(identity))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise cache_error(error, "look at a claim", self._layout.ingest) from error
        # A write within the clock's grain may show in one of them only.
        return (status.st_ino, status.st_size, status.st_blocks, status.st_mtime_ns, status.st_ctime_ns)

    def claim_holder(self, *identity: str) -> Holder | None:
        """The process that has a claim; None when the claim's file is gone.

        Raises:
            CacheError: The file can't be looked at.
        """
        with explained("look at a claim", self._layout.ingest):
            return holder_of(self._claimed(identity))

    def partial_bytes(self, *identity: str) -> int:
        """Bytes of the volume that an interrupted run's file of this object takes.

        Raises:
            CacheError: The file can't be looked at.
        """
        return state[2] * BLOCK if (state := self.claim_state(*identity)) else 0

    def _claimed(self, identity: tuple[str, ...]) -> str:
        words = "\0".join(identity).encode("utf-8", "surrogateescape")
        return f"{self._ingest}/{hashlib.blake2b(words, digest_size=20).hexdigest()}"

    def commit(self, claim: Claim, digest: str, size: int, *, sync: bool) -> bool:
        """Make the claimed file the blob `digest`. The caller has hashed its bytes.

        The claim stays until it is dropped, so that whoever waits for it finds the digest in the pin memory.

        With `sync` the bytes become durable now, if the cache's durability wants that at all. Otherwise `sync()` must
        follow before anything names the blob.

        Returns:
            Whether they are durable now.

        Raises:
            CacheError: The volume refuses; the blob is not visible.
        """
        target = self._layout.blob_path(digest)
        synced = self._durability is Durability.FULL or (sync and self._durability is Durability.BATCH)
        try:
            # A writer that flock did not keep out may have changed the file since it was hashed.
            if os.fstat(claim.file).st_size != size:
                raise ChecksumMismatch("The file in the cache does not have the size of its object")
            # Read-only before it is visible: a blob may never be written to.
            os.fchmod(claim.file, READ_ONLY_FILE)
            # Before the link: after a power cut, a blob is durable, or a mark says that it must be read again.
            if synced:
                os.fsync(claim.file)
            elif self._durability is not Durability.NONE:
                self._unsynced.add(digest)
            folder = target.rpartition("/")[0]
            # Once for each of the 256 folders, not once for each blob.
            if folder not in self._folders:
                Path(folder).mkdir(mode=PRIVATE_DIR, exist_ok=True)
                self._layout.share(folder, GROUP_DIR)
                self._folders.add(folder)
            # The claim's name stays beside the blob's: its second link keeps a collection from taking the blob.
            self._place(claim, target, digest)
            if self._durability is Durability.FULL:
                # So that the blob's name survives a power cut, too.
                sync_folder(Path(folder))
        except OSError as error:
            raise cache_error(error, "store the blob", Path(target)) from error
        return synced

    def _place(self, claim: Claim, target: str, digest: str) -> None:
        try:
            os.link(claim.path, target)
        except FileExistsError:
            # A blob of this name is there already. It may have rotted, so it stays only if its bytes hash to its name.
            if not _is_sound(target, digest):
                self._set_aside(target, digest)
                # Whoever stores the same bytes at once may be faster: its blob is as good.
                with suppress(FileExistsError):
                    os.link(claim.path, target)
        except OSError as error:
            if error.errno not in _LINKS_REFUSED:
                raise
            # Without hard links the claim's own file becomes the blob. Then only its writer's lease holds it.
            os.rename(claim.path, target)  # noqa: PTH104

    def _set_aside(self, target: str, digest: str) -> None:
        if rot := check_blob(self._layout, digest):
            Quarantine(self._layout).put(rot)
        elif not _is_sound(target, digest):  # its bytes are right, but somebody may write to it and change them
            with suppress(FileNotFoundError):
                self._layout.discard(Path(target))

    def sync(self) -> bool:
        """Make every blob that was committed so far durable; False when the cache's durability is `none`.

        Raises:
            CacheError: The volume failed to write. The blobs that may be lost were taken out of sight.
        """
        if self._durability is Durability.NONE:
            return False
        with explained("sync the volume", self._layout.blobs):
            # The caller may name the blobs now: a failure raises, and takes them out of sight.
            self._unsynced.sync()
        return True

    def add_unsynced(self, digest: str) -> None:
        """Have the next `sync` make a blob durable that another process committed.

        Raises:
            CacheError: It can't be noted.
        """
        with explained("note a blob", self._layout.ingest):
            self._unsynced.add(digest)

    def discard_unsynced(self) -> None:
        """Take the blobs out of sight that came in after a sync that failed, which may have been to write them."""
        self._unsynced.discard()

    def synced_elsewhere(self) -> None:
        """Forget what is unsynced: another process has synced the volume since."""
        self._unsynced.forget()

    def orphans(self, older_than: float) -> Iterator[Path]:
        """Unclaimed files in the ingest folder that have not changed for `older_than` seconds."""
        now = time.time()
        for path in self._layout.ingest.iterdir():
            if path.name.startswith(UNSYNCED):
                continue  # after a power cut, the next `open` of the cache needs this mark
            try:
                if now - path.lstat().st_mtime > older_than and not Claim.is_taken(str(path)):
                    yield path
            except FileNotFoundError:
                continue


def _is_sound(path: str, digest: str) -> bool:
    try:
        return is_blob(path, digest)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOENT):
            raise
        return False  # a symbolic link is in its place, or another writer moved it aside
