"""Copying blobs between the volumes of this node, hashed on the way, so that they need not be fetched."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from threading import Event

from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.ingest import Claim
from prefect_stagegate.cache.layout import explained
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.space import Space, room
from prefect_stagegate.cache.views import Draft
from prefect_stagegate.errors import CacheError, Cancelled
from prefect_stagegate.model import Action, Entry, PlannedObject
from prefect_stagegate.transfer.buffers import write_all
from prefect_stagegate.transfer.progress import Progress
from prefect_stagegate.units import count_text

log = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Bytes that are read, hashed and written at a time."""
COPIERS = 4
"""Blobs that are copied at a time."""
BATCH = 1024
"""Entries that wait for the copiers, at most."""


def copy_entries(
    cache: Cache,
    dataset: str,
    digest: str,
    entries: Callable[[], Iterable[Entry]],
    draft: Draft,
    space: Space,
    *,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> bool:
    """Copy the blobs of a version that another volume of the node has, and hold them in a draft.

    Args:
        cache: The volume that lacks them.
        dataset: The version's dataset.
        digest: The version's digest.
        entries: Gives the entries that are wanted, each time anew.
        draft: Holds what was copied, and while room is made, what was there.
        space: What may be filled.
        progress: Called as copying goes on, from several threads.
        cancel: Set it to stop in time.

    Returns:
        Whether the volume has all of the entries' blobs now.

    Raises:
        NoSpace: They don't fit.
        Cancelled: `cancel` was set.
    """
    others = _others(cache)
    if not others:
        return False
    copier = _Copier(cache, others, space, progress or Progress(), cancel)

    def hold_present() -> None:
        for entry in entries():
            if cache.blobs.holds(entry.digest, entry.size):
                draft.hold(entry)

    with ExitStack() as leases:
        for volume in others:
            # So that no collection takes there what is copied from there. One that can't be written is read without.
            with suppress(CacheError):
                if volume.views.path(dataset, digest):
                    leases.enter_context(volume.leases.hold(LeaseKind.READER, dataset, digest, f"copy to {cache.root}"))
        # Twice over the entries, since they may not fit into memory.
        space.claim(sum(room(entry.size) for entry in entries() if copier.finds(entry)), hold_present)
        copier.copy_all((entry for entry in entries() if copier.finds(entry)), draft)
    # Before anything names them.
    cache.blobs.sync()
    if all(cache.blobs.holds(entry.digest, entry.size) for entry in entries()):
        return True
    if progress:
        # The transfer of the rest counts what was copied once more, as reused.
        progress.listed(0, copier.bytes)
    return False


def copied(
    cache: Cache, plan: Iterable[PlannedObject], space: Space, kept: Draft, cancel: Event | None = None
) -> Iterator[PlannedObject]:
    """Pass a plan on; an object that another volume of the node has is copied from there, and reused.

    Space for it is claimed already. `kept` holds it.
    """
    others = _others(cache)
    copier = _Copier(cache, others, space, Progress(), cancel)
    for planned in plan:
        entry = Entry(planned.path, planned.object.size, planned.digest)
        is_here = bool(others) and _may_be_copied(planned) and copier.copy(entry, kept.hold)
        yield replace(planned, action=Action.REUSE) if is_here else planned


def would_copy(cache: Cache, plan: Iterable[PlannedObject]) -> Iterator[PlannedObject]:
    """Pass a plan on, with what `copied` would copy marked as reused."""
    others = _others(cache)
    for planned in plan:
        held = _may_be_copied(planned) and any(volume.holds(planned.digest, planned.object.size) for volume in others)
        yield replace(planned, action=Action.REUSE) if held else planned


def _others(cache: Cache) -> list[Cache]:
    return [volume for volume in cache.volumes if volume is not cache]


def _may_be_copied(planned: PlannedObject) -> bool:
    return planned.action is Action.FETCH and bool(planned.digest) and not planned.doubted


class _Copier:
    def __init__(
        self, cache: Cache, others: list[Cache], space: Space, progress: Progress, cancel: Event | None
    ) -> None:
        self._cache, self._others, self._space, self._progress = cache, others, space, progress
        self._cancel, self._stopped = cancel, False
        self._lock = threading.Lock()
        self.bytes = 0
        """Bytes that were copied so far."""

    def copy_all(self, entries: Iterable[Entry], draft: Draft) -> None:
        """Copy the blobs of entries, several at a time, and hold them in a draft."""
        holding = threading.Lock()

        def hold(entry: Entry) -> None:
            with holding:
                draft.hold(entry)

        waiting = iter(entries)
        with ThreadPoolExecutor(COPIERS, "stagegate-copy") as pool:
            try:
                while batch := list(islice(waiting, BATCH)):
                    list(pool.map(partial(self.copy, hold=hold), batch))
            except BaseException:
                # Copies in other threads end, too.
                self._stopped = True
                raise

    def finds(self, entry: Entry) -> bool:
        """Whether the volume lacks a blob, and another one has it."""
        if self._cache.blobs.holds(entry.digest, entry.size):
            return False
        return any(volume.holds(entry.digest, entry.size) for volume in self._others)

    def copy(self, entry: Entry, hold: Callable[[Entry], None]) -> bool:
        """Copy a blob from the first volume that has it sound; False where none has, or another process brings it.

        Raises:
            CacheError: The volume can't be written.
            Cancelled: It was cancelled.
        """
        for volume in self._others:
            if volume.holds(entry.digest, entry.size) and self._copy_from(volume, entry, hold):
                return True
        return False

    def _copy_from(self, volume: Cache, entry: Entry, hold: Callable[[Entry], None]) -> bool:
        blobs = self._cache.blobs
        # By the words of a fetch, so that whoever fetches the blob waits for the copy.
        claim = blobs.claim(entry.digest)
        if claim is None:
            return False
        try:
            # Another process may have brought it just before.
            if not blobs.holds(entry.digest, entry.size):
                self._space.take(room(entry.size))
                if not self._write(volume, entry, claim):
                    return False
                blobs.commit(claim, entry.digest, entry.size, sync=False)
            # Before the claim is dropped: a blob without a second link may be collected.
            hold(entry)
        finally:
            claim.drop()
        return True

    def _write(self, volume: Cache, entry: Entry, claim: Claim) -> bool:
        """Write the blob's bytes into the claimed file; False where the other volume doesn't give them."""
        hasher, source = blake3(), volume.layout.blob_path(entry.digest)
        with explained("copy a blob", claim.path):
            # An interrupted run may have left something.
            os.ftruncate(claim.file, 0)
        try:
            file = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            return self._refuse(volume, entry, error.strerror or str(error))
        with os.fdopen(file, "rb", buffering=0) as blob:
            position = 0
            while True:
                try:
                    chunk = blob.read(CHUNK)
                except OSError as error:
                    return self._refuse(volume, entry, error.strerror or str(error))
                if not chunk:
                    break
                if self._stopped or (self._cancel and self._cancel.is_set()):
                    raise Cancelled("The copying was stopped")
                hasher.update(chunk)
                with explained("copy a blob", claim.path):
                    write_all(claim.file, memoryview(chunk), position)
                position += len(chunk)
                self._progress.moved(len(chunk))
        if f"blake3:{hasher.hexdigest()}" != entry.digest:
            return self._refuse(volume, entry, f"its {count_text(position, 'byte')} have another digest")
        with self._lock:
            self.bytes += position
        return True

    def _refuse(self, volume: Cache, entry: Entry, problem: str) -> bool:
        log.warning("%s is not copied from %s: %s. Run `stagegate verify --repair`", entry.path, volume.root, problem)
        return False
