"""Verifying what lies on this node: hash it again, move aside what rotted, and fetch it anew.

A blob is hashed once, however many versions have it. What rotted goes into quarantine at once, so that no later staging
reuses it; views keep their file until a repair renames a sound one over it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from itertools import islice
from threading import Event
from typing import Protocol

from prefect_stagegate.cache.gc import empty_trash
from prefect_stagegate.cache.layout import ONLY_READABLE
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.quarantine import MOST, Quarantine, Quarantined
from prefect_stagegate.cache.scrub import CIRCLE, WHOLE, Arc, blobs_on, next_arc, note_end
from prefect_stagegate.cache.space import used_bytes
from prefect_stagegate.cache.verify import Pace, Rot, check_blob, verify_view
from prefect_stagegate.errors import CacheError, Cancelled, CatalogError, StagegateError, UnknownRef, UsageError
from prefect_stagegate.manifest import Manifest
from prefect_stagegate.model import Address, Entry, Finding
from prefect_stagegate.operations.read import OpenDataset, keep_dataset
from prefect_stagegate.operations.staging import fetch as bring
from prefect_stagegate.operations.staging.temporary_tables import insert, temporary
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.unreadable import Unreadable, UnreadableRecords

log = logging.getLogger(__name__)

BATCH = 512


@dataclass(frozen=True, slots=True)
class Damage:
    """One file of a view that doesn't hold what its manifest names."""

    dataset: str
    digest: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Verification:
    """What hashing again showed."""

    versions: int
    files: int
    """Files of these versions that were looked at."""
    bytes: int
    """Bytes that were hashed for that: what several files share is hashed once."""
    damaged: tuple[Damage, ...]
    repaired: bool
    """Whether all that was damaged was fetched again."""
    quarantined: tuple[Quarantined, ...] = ()
    """The rotten blobs that were moved aside."""
    unreadable: tuple[Unreadable, ...] = ()
    """Records of versions that can't be read, so that nobody knows what these should hold."""
    share: float = 1.0
    """How much of the node's blobs were hashed; of one version's, when one was named."""


class Watch(Protocol):
    """Told how a verification goes on."""

    def expect(self, size: int) -> None:
        """About so many bytes are to be read."""

    def read(self, size: int) -> None:
        """So many more were read."""


def verify(
    workspace: Workspace,
    address: Address | None = None,
    *,
    repair: bool = False,
    share: Fraction | None = None,
    lasting: timedelta | None = None,
    rate: int | None = None,
    watch: Watch | None = None,
    cancel: Event | None = None,
) -> Verification:
    """Hash one version of this node, or what the node has, and compare with the manifests.

    Of all, a version that a collection takes meanwhile is left out, and so is one that its stager has not written into
    the catalog yet, or died before it did. One that can't be repaired keeps no other from its turn. A verification of
    all goes on where the last one stopped, so runs that each do a share, or take a time, come around to everything.

    Args:
        workspace: Cache and catalog.
        address: The version; all on this node when None.
        repair: Fetch what is damaged again through its origins. What can't be had any more stays as it is.
        share: Of all, only so much in this run.
        lasting: Of all, only as much as is hashed in this time.
        rate: Bytes a second; by default the settings'.
        watch: Told how it goes on.
        cancel: Set it to stop in time.

    Raises:
        UsageError: The node hasn't that version, or it was to verify a share of it.
        TransferFailed: A repair found its object nowhere. The first such error, after all had their turn.
    """
    pace = Pace(rate or workspace.settings.verify_rate, cancel, watch.read if watch else lambda _: None)
    run = _Run(workspace, pace, cancel)
    if address:
        if share is not None or lasting is not None:
            raise UsageError(
                "A share, or a time, is for all that lies on this node", hint=f"Leave it out, or leave out {address}."
            )
        arc = run.version(address, watch, repair=repair)
    else:
        arc = run.all(share or Fraction(1), lasting, watch, repair=repair)
    if run.failed:
        raise run.failed[0]
    return run.result(arc, repair=repair)


class _Run:
    """One verification, and what it found so far."""

    def __init__(self, workspace: Workspace, pace: Pace, cancel: Event | None) -> None:
        self._where, self._pace, self._cancel = workspace, pace, cancel
        self._versions = self._files = 0
        self._damaged: list[Damage] = []
        self._rotten: dict[str, Rot] = {}
        self._aside: dict[str, Quarantined] = {}
        self._unreadable = UnreadableRecords()
        self.failed: list[StagegateError] = []

    def version(self, address: Address, watch: Watch | None, *, repair: bool) -> Arc:
        """Verify one version, which must be here."""
        address = address.counted(self._where.catalog.resolve)
        with keep_dataset(self._where.cache, address, "verify") as held:
            manifest = self._where.catalog.manifest(held.dataset, held.digest)
            if watch:
                watch.expect(manifest.bytes)
            for digest in _digests(manifest):
                self._check(digest)
            self._view(held, manifest, WHOLE, repair=repair)
        return WHOLE

    def all(self, share: Fraction, lasting: timedelta | None, watch: Watch | None, *, repair: bool) -> Arc:
        """Verify the blobs whose turn it is, and what every version has of them."""
        workspace = self._where
        if watch:
            watch.expect(int(used_bytes(workspace.cache.layout) * share))
        arc = self._blobs(next_arc(workspace.cache, share), lasting)
        for dataset, digest in workspace.cache.views.all():
            with ExitStack() as holding:
                held = _held(holding, workspace, Address(dataset, digest))
                try:
                    if held is not None and workspace.catalog.has_version(dataset, digest):
                        self._view(held, workspace.catalog.manifest(dataset, digest), arc, repair=repair)
                except CatalogError as error:
                    self._unreadable.add(error, dataset)
        return arc

    def result(self, arc: Arc, *, repair: bool) -> Verification:
        """What was found."""
        return Verification(
            self._versions,
            self._files,
            self._pace.bytes,
            tuple(self._damaged),
            repaired=repair and bool(self._damaged),
            quarantined=tuple(self._aside.values()),
            unreadable=self._unreadable.all,
            share=arc.size / CIRCLE,
        )

    def _blobs(self, arc: Arc, lasting: timedelta | None) -> Arc:
        """Hash the blobs on an arc while there is time; gives the part of it that was hashed."""
        until = time.monotonic() + lasting.total_seconds() if lasting is not None else float("inf")
        done = 0
        try:
            for digest in blobs_on(self._where.cache.layout, arc):
                self._check(digest)
                done = arc.offset(digest[7:]) + 1
                if time.monotonic() >= until:
                    break
            else:
                done = arc.size
        finally:
            note_end(self._where.cache, Arc(arc.start, done))
        return Arc(arc.start, done)

    def _check(self, digest: str) -> None:
        """Hash a blob, and move it aside when it rotted."""
        layout = self._where.cache.layout
        rot = check_blob(layout, digest, self._pace)
        if rot is None:
            return
        self._rotten[digest] = rot
        try:
            if one := Quarantine(layout).put(rot):
                self._aside[digest] = one
        except CacheError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in ONLY_READABLE:
                raise
            log.warning("%s rotted, and %s can only be read, so it stays where it is", digest, layout.root)

    def _view(self, held: OpenDataset, manifest: Manifest, arc: Arc, *, repair: bool) -> None:
        """Look at the files that a version has of an arc's blobs, and mend them. It is held."""
        self._versions += 1
        entries = self._counted(entry for entry in manifest.entries() if arc is WHOLE or entry.digest in arc)
        found = verify_view(held.path, entries, self._where.cache.layout, rotten=self._rotten, read=self._pace)
        bad = list(found)
        self._damaged.extend(Damage(held.dataset, held.digest, finding) for _, finding in bad)
        self._name(held, [entry for entry, _ in bad])
        if bad and repair:
            self._mend(held, [entry for entry, _ in bad])

    def _counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self._files += 1
            yield entry

    def _mend(self, held: OpenDataset, entries: list[Entry]) -> None:
        """Fetch the bytes of damaged files again and put them in place. When that fails the view stays as it is."""
        cache = self._where.cache
        try:
            with cache.leases.hold(LeaseKind.WRITER, held.dataset, what="repair") as writer:
                bring.mend(self._where, writer, held.dataset, held.digest, entries, cancel=self._cancel)
            empty_trash(cache.layout)
        except Cancelled:
            raise
        except StagegateError as error:
            log.error("%s@%s could not be repaired: %s", held.dataset, held.digest, error)  # noqa: TRY400 - raised later
            self.failed.append(error)

    def _name(self, held: OpenDataset, entries: list[Entry]) -> None:
        """Write beside the blobs that were moved aside which entries of a version they were."""
        for entry in entries:
            one = self._aside.get(entry.digest)
            if one and len(one.entries) < MOST:
                name = f"{held.dataset}@{held.digest} {entry.path}"
                self._aside[entry.digest] = Quarantine(self._where.cache.layout).name(one, name)


def _digests(manifest: Manifest) -> Iterator[str]:
    """The digests of a version's entries, each once."""
    owner = _Owner()
    database = temporary("CREATE TABLE digests (digest TEXT PRIMARY KEY) WITHOUT ROWID", owner)
    entries = manifest.entries()
    while some := [(entry.digest,) for entry in islice(entries, BATCH)]:
        insert(database, "INSERT OR IGNORE INTO digests", some)
    for (digest,) in database.execute("SELECT digest FROM digests"):
        yield digest


class _Owner:
    """Keeps a temporary table for as long as somebody asks it."""


def _held(holding: ExitStack, workspace: Workspace, address: Address) -> OpenDataset | None:
    """Hold a version; None when it went since the node's versions were listed."""
    try:
        return holding.enter_context(keep_dataset(workspace.cache, address, "verify"))
    except UnknownRef:
        return None
