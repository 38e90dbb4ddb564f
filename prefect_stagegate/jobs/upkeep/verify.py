"""Verifying this node's cache: hash its blobs again, move rotten ones aside, and fetch their bytes again.

A blob is hashed once, however many versions have it. A rotten blob goes into quarantine at once, so that no later
staging reuses it. Views keep their file until a repair renames a sound one over it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from itertools import islice
from threading import Event
from typing import Protocol

from prefect_stagegate.cache.blob_verification import (
    NOT_IN_VERSION,
    Pace,
    Rot,
    check_blob,
    extra_files,
    look_at_view,
    verify_view,
)
from prefect_stagegate.cache.gc import empty_trash
from prefect_stagegate.cache.layout import ONLY_READABLE
from prefect_stagegate.cache.quarantine import MAX_ENTRIES, Quarantine, Quarantined
from prefect_stagegate.cache.scrub import CIRCLE, WHOLE, Arc, blobs_on, next_arc, note_end
from prefect_stagegate.cache.space import used_bytes
from prefect_stagegate.cache.views import seal_view
from prefect_stagegate.catalog.version_records import has_version, read_manifest
from prefect_stagegate.errors import (
    CacheError,
    Cancelled,
    CatalogError,
    NotReady,
    StagegateError,
    UnknownRef,
    UsageError,
)
from prefect_stagegate.jobs.read import OpenDataset, keep_dataset
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.jobs.staging.fetch import repair_files
from prefect_stagegate.jobs.staging.temporary_tables import BATCH, insert, temporary
from prefect_stagegate.model import Address, Entry, Finding, Verdict
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.units import digest_text
from prefect_stagegate.unreadable import Unreadable, UnreadableRecords
from prefect_stagegate.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """One file of a view whose bytes are not those that its manifest names."""

    dataset: str
    digest: str
    finding: Finding
    volume: str = ""
    """The folder of the cache."""


@dataclass(frozen=True, slots=True)
class Verification(Verdict, asks="damaged"):
    """The result of a verification."""

    versions: int
    """Views that were checked."""
    files: int
    """Files of these versions that were checked."""
    bytes: int
    """Bytes that were hashed for that. A blob that several files share is hashed once."""
    damaged: tuple[Damage, ...]
    repaired: bool
    """Whether all damaged files were repaired."""
    quarantined: tuple[Quarantined, ...] = ()
    """The rotten blobs that were moved aside."""
    unreadable: tuple[Unreadable, ...] = ()
    """Records of versions that can't be read, so that these versions were not verified."""
    share: float = 1.0
    """The share of the node's blobs that were hashed; of one version's, when an address was given."""


class VerifyProgress(Protocol):
    """Receives the progress of a verification."""

    def expect(self, size: int) -> None:
        """About `size` bytes are to be read."""

    def read(self, size: int) -> None:
        """`size` more bytes were read."""


def verify(
    workspace: Workspace,
    address: Address | None = None,
    *,
    repair: bool = False,
    share: Fraction | None = None,
    lasting: timedelta | None = None,
    rate: int | None = None,
    watch: VerifyProgress | None = None,
    cancel: Event | None = None,
) -> Verification:
    """Hash one version of this node, or everything on the node, and compare it with the manifests.

    A verification of everything leaves out versions that are collected meanwhile, and those that are not in the catalog
    yet. It goes on where the last one stopped, so runs that each do a share, or take a time, come around to everything.
    A version that can't be repaired does not keep others from being verified.

    Args:
        workspace: Cache and catalog.
        address: The version; None for everything on this node.
        repair: Fetch damaged files again through their origins. A file that can't be fetched stays.
        share: Only this share of everything.
        lasting: Only as much of everything as is hashed in this time.
        rate: Bytes a second; by default the settings'.
        watch: Receives the progress.
        cancel: Set it to stop in time.

    Raises:
        UsageError: The node hasn't that version, or `share` or `lasting` is given with an address.
        TransferFailed: A repair could not fetch an object. The first such error, raised when all else is verified.
    """
    pace = Pace(rate or workspace.settings.verify_rate, cancel, watch.read if watch else lambda _: None)
    if address and (share is not None or lasting is not None):
        raise UsageError(
            "A share or a time applies to the whole node, not to one version",
            hint=f"Leave it out, or leave out {address}.",
        )
    with step(workspace, "verify", address.dataset if address else "") as job:
        verifier = _Verifier(workspace, pace, cancel)
        if address:
            arc = verifier.version(address.counted(workspace.catalog.resolve), watch, repair=repair)
        else:
            arc = verifier.all(share or Fraction(1), lasting, watch, repair=repair)
        if verifier.failed:
            raise verifier.failed[0]
        verification = verifier.result(arc, repair=repair)
        job.note(files=verification.files, bytes=verification.bytes, damaged=len(verification.damaged))
        return verification


class _Verifier:
    """A verification and its results so far."""

    def __init__(self, workspace: Workspace, pace: Pace, cancel: Event | None) -> None:
        self._workspace, self._pace, self._cancel = workspace, pace, cancel
        self._versions = self._files = 0
        self._damaged: list[Damage] = []
        self._rotten: dict[str, Rot] = {}
        self._aside: dict[str, Quarantined] = {}
        self._unreadable = UnreadableRecords()
        self.failed: list[StagegateError] = []

    def version(self, address: Address, watch: VerifyProgress | None, *, repair: bool) -> Arc:
        """Verify one version, which must be on this node."""
        with keep_dataset(self._workspace.cache, address, "verify") as held:
            manifest = read_manifest(self._workspace.catalog, held.dataset, held.digest)
            if watch:
                watch.expect(manifest.bytes)
            # Each blob once; then a file that is a link to its blob needs no hashing.
            for digest in _digests(manifest):
                self._check(digest)
            self._verify_view(held, manifest, WHOLE, repair=repair)
        return WHOLE

    def all(self, share: Fraction, lasting: timedelta | None, watch: VerifyProgress | None, *, repair: bool) -> Arc:
        """Verify the next share of the blobs, and each version's files of those blobs."""
        workspace = self._workspace
        if watch:
            watch.expect(int(used_bytes(workspace.cache.layout) * share))
        # Blobs first: a file that is a link to its blob needs no hashing of its own.
        arc = self._verify_blobs(next_arc(workspace.cache, share), lasting)
        for dataset, digest in workspace.cache.views.all():
            with ExitStack() as holding:
                held = _held(holding, workspace, Address(dataset, digest))
                try:
                    if held is not None and has_version(workspace.catalog, dataset, digest):
                        self._verify_view(held, read_manifest(workspace.catalog, dataset, digest), arc, repair=repair)
                except CatalogError as error:
                    self._unreadable.add(error, dataset)
        return arc

    def result(self, arc: Arc, *, repair: bool) -> Verification:
        """The results as one value."""
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

    def _verify_blobs(self, arc: Arc, lasting: timedelta | None) -> Arc:
        """Hash the blobs on an arc while there is time; return the part of the arc that was hashed."""
        deadline = time.monotonic() + lasting.total_seconds() if lasting is not None else float("inf")
        done = 0
        try:
            for digest in blobs_on(self._workspace.cache.layout, arc):
                self._check(digest)
                # One behind the blob, so that the next run does not begin with it again.
                done = arc.offset(digest[7:]) + 1
                if time.monotonic() >= deadline:
                    break
            else:
                done = arc.size
        finally:
            # Also after a cancel or an error: the next run begins where this one ended.
            note_end(self._workspace.cache, Arc(arc.start, done))
        return Arc(arc.start, done)

    def _check(self, digest: str) -> None:
        """Hash a blob, and move it aside when it is rotten."""
        layout = self._workspace.cache.layout
        rot = check_blob(layout, digest, self._pace)
        if rot is None:
            return
        self._rotten[digest] = rot
        try:
            if quarantined := Quarantine(layout).put(rot):
                self._aside[digest] = quarantined
        except CacheError as error:
            # In a cache that can only be read, rot is reported and stays where it is.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in ONLY_READABLE:
                raise
            log.warning("the blob %s is rotten, and %s is read-only, so it stays where it is", digest, layout.root)

    def _verify_view(self, held: OpenDataset, manifest: Manifest, arc: Arc, *, repair: bool) -> None:
        """Check a version's files of an arc's blobs, and repair them. The caller holds the version."""
        self._versions += 1
        # Without a look at each digest where everything is verified.
        entries = self._count_files(entry for entry in manifest.entries() if arc is WHOLE or entry.digest in arc)
        layout = self._workspace.cache.layout
        damaged = list(verify_view(held.path, entries, layout, rotten=self._rotten, read=self._pace))
        self._damaged.extend(Damage(held.dataset, held.digest, finding, str(layout.root)) for _, finding in damaged)
        missing = sum(not os.path.lexists(held.path / entry.path) for entry, _ in damaged)
        # Of a part of the blobs, not all missing files are known.
        extra = extra_files(held.path, manifest, missing) if arc is WHOLE or not damaged else []
        findings = (
            Finding(path, NOT_IN_VERSION, "Run `stagegate verify --repair`: it removes the file.") for path in extra
        )
        self._damaged.extend(Damage(held.dataset, held.digest, finding, str(layout.root)) for finding in findings)
        self._record_entries(held, [entry for entry, _ in damaged])
        if arc is WHOLE and not damaged:
            seal_view(held.path)
        if extra and repair:
            self._workspace.cache.views.remove(held.dataset, held.digest, extra)
        if damaged and repair:
            self._repair(held, [entry for entry, _ in damaged])

    def _count_files(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self._files += 1
            yield entry

    def _repair(self, held: OpenDataset, entries: list[Entry]) -> None:
        """Replace damaged files by fetched ones. Errors are kept in `failed`, so that other versions get their turn."""
        try:
            repair_files(self._workspace, held.dataset, held.digest, entries, cancel=self._cancel)
            empty_trash(self._workspace.cache.layout)
        except Cancelled:
            raise
        except StagegateError as error:
            log.error("%s@%s could not be repaired: %s", held.dataset, held.digest, error)  # noqa: TRY400 - raised later
            self.failed.append(error)

    def _record_entries(self, held: OpenDataset, entries: list[Entry]) -> None:
        """Add a version's entries to the records of the quarantined blobs that they were."""
        for entry in entries:
            blob = self._aside.get(entry.digest)
            if blob and len(blob.entries) < MAX_ENTRIES:
                name = f"{held.dataset}@{held.digest} {entry.path}"
                self._aside[entry.digest] = Quarantine(self._workspace.cache.layout).add_entry(blob, name)


def _digests(manifest: Manifest) -> Iterator[str]:
    """The digests of a version's entries, without duplicates."""
    with closing(temporary("CREATE TABLE digests (digest TEXT PRIMARY KEY) WITHOUT ROWID")) as database:
        entries = manifest.entries()
        while batch := [(entry.digest,) for entry in islice(entries, BATCH)]:
            insert(database, "INSERT OR IGNORE INTO digests", batch)
        for (digest,) in database.execute("SELECT digest FROM digests"):
            yield digest


def _held(holding: ExitStack, workspace: Workspace, address: Address) -> OpenDataset | None:
    """Hold a version; None when it was collected since the node's versions were listed."""
    try:
        return holding.enter_context(keep_dataset(workspace.cache, address, "verify"))
    except UnknownRef:
        return None


def require_undamaged(
    workspace: Workspace, dataset: str, digest: str, refusal: type[StagegateError] = NotReady
) -> None:
    """Raise `refusal` where a `stat` of each file shows one that is missing, changed, or none of the version's."""
    manifest = read_manifest(workspace.catalog, dataset, digest)
    version = f"{dataset}@{digest_text(digest)}"
    view = workspace.cache.layout.view(dataset, digest)
    if finding := look_at_view(view, manifest):
        problem = f"{view / finding.subject} of {version} is damaged: {finding.problem}"
        raise refusal(problem, hint=f"Run `stagegate verify {version} --repair`.", dataset=dataset)
