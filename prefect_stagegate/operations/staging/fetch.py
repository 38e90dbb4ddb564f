"""Bringing: fill this node with a version that the catalog knows, through the version's origins and their mirrors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from threading import Event

from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.cache.views import Draft
from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.model import LATEST, Address, Entry, Version
from prefect_stagegate.operations.staging.origins import plan_origins, spec_with_sources
from prefect_stagegate.operations.staging.sources import open_sources
from prefect_stagegate.operations.upkeep.eviction import claimed, space_for
from prefect_stagegate.operations.upkeep.node_refs import point
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.transfer import Limits, Progress, TransferStats, transfer


def bring(
    workspace: Workspace,
    address: Address,
    writer: Lease,
    *,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> Version:
    """Bring a version to this node.

    The node's copy of the ref moves after the view is complete; the catalog's refs stay.

    Args:
        workspace: Cache and catalog.
        address: The version.
        writer: The caller's lease on the dataset.
        progress: Told what happens, from several threads.
        cancel: Set it to stop in time.

    Raises:
        UsageError: There is no such version, or no stored spec has its sources.
        TransferFailed: A pin is gone everywhere; the objects are named.
        CorruptRecord: The catalog's manifest is damaged; nothing of it became visible.
    """
    dataset, digest = address.dataset, workspace.catalog.resolve(address)
    manifest = workspace.catalog.manifest(dataset, digest)
    view = workspace.cache.views.path(dataset, digest)
    fetched = 0
    if view is None:
        if progress:
            progress.listed(manifest.files, manifest.bytes)
        with workspace.cache.views.draft() as draft:
            fetched = _fetch(workspace, writer, dataset, digest, draft, progress=progress, cancel=cancel).fetched
            view = draft.publish(dataset, digest, manifest.entries())
    workspace.cache.views.touch(dataset, digest)
    if not address.is_version:
        point(workspace, dataset, address.ref or LATEST, digest)
    reused = max(0, manifest.bytes - fetched)
    pins = workspace.catalog.pins(dataset, digest)
    return Version(dataset, digest, view, manifest.files, manifest.bytes, fetched, reused, pins=pins)


def mend(
    workspace: Workspace,
    writer: Lease,
    dataset: str,
    digest: str,
    entries: Sequence[Entry],
    *,
    cancel: Event | None = None,
) -> None:
    """Fetch the bytes of some of a version's entries again, where the cache holds them no more, and put them in place.

    Raises:
        UsageError: No stored spec has the version's sources.
        TransferFailed: Some can't be had; they are named, and stay as they were. The others are in place.
    """
    paths = {entry.path for entry in entries}
    with workspace.cache.views.draft() as draft:
        done = _fetch(workspace, writer, dataset, digest, draft, paths=paths, cancel=cancel)
        lost = {failure.object for failure in done.failures}
        draft.mend(dataset, digest, (entry for entry in entries if entry.path not in lost))
    if done.failures:
        raise TransferFailed(done.failures)


def _fetch(
    workspace: Workspace,
    writer: Lease,
    dataset: str,
    digest: str,
    draft: Draft,
    *,
    paths: Collection[str] | None = None,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> TransferStats:
    """Bring the blobs of a version, or of some of its paths, and tell what was done.

    A version is brought whole or not at all, whatever its spec lets fail: that is a matter of making one. Of some paths
    each may fail.
    """
    spec = spec_with_sources(workspace, dataset, digest)
    space = space_for(workspace, writer, mends=paths is not None)
    with workspace.admit(spec, cancel), open_sources(workspace, spec) as sources, workspace.cache.views.draft() as kept:
        receipts = transfer(
            claimed(workspace, space, plan_origins(workspace, spec, dataset, digest, paths), sources.groups, kept),
            sources.groups,
            workspace.cache,
            space=space,
            limits=Limits.of(workspace.settings),
            progress=progress,
            cancel=cancel,
            max_failed=len(paths or ()),
        )
        for receipt in receipts:
            draft.hold(Entry(receipt.path, receipt.object.size, receipt.digest))
    return receipts.stats
