"""Fetching a version that the catalog knows to this node, from the version's origins and their mirrors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from prefect_stagegate.cache.job_progress import Phase
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.views import Draft
from prefect_stagegate.catalog.version_records import read_manifest, read_pins
from prefect_stagegate.doors import Job, load, plugins, require_allowed
from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.jobs.address import resolve_for_node
from prefect_stagegate.jobs.runner import point, step, transferring
from prefect_stagegate.jobs.staging.fetch_order import FAILURES, FetchOrder, readers_told
from prefect_stagegate.jobs.staging.origins import plan_origins, spec_with_sources
from prefect_stagegate.model import Address, Entry, Version
from prefect_stagegate.transport.transfer import Progress, TransferStats
from prefect_stagegate.transport.transfer.progress import Meter
from prefect_stagegate.workspace import Workspace


def fetch_version(
    workspace: Workspace,
    address: Address,
    purpose: str,
    *,
    peers: Collection[str] = (),
    follow: str = "",
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> Version:
    """Fetch a version to this node, unless it is here: from replicas that have it or fetch it, too.

    The node's copy of the ref moves after the view is complete. The catalog's refs don't move. What readers of the
    arriving version ask for comes first.

    `purpose` says what it is fetched for, for people. `peers` names nodes that fetch it at the same time: those of one
    site read the sources once. `follow` is a ref whose copy moves though the address names a digest. `progress` is
    called from several threads; `cancel` stops in time.

    Raises:
        UsageError: There is no such version, or no stored spec has its sources.
        TransferFailed: A pin is gone everywhere; the objects are named.
        CorruptRecord: The catalog's manifest is damaged; nothing of it became visible.
    """
    dataset, views, stats = address.dataset, workspace.cache.views, TransferStats()
    with workspace.cache.leases.hold(LeaseKind.WRITER, dataset, purpose=purpose) as writer:
        digest = resolve_for_node(workspace, address)
        manifest = read_manifest(workspace.catalog, dataset, digest)
        view = views.path(dataset, digest)
        # Complete and read-only since it appeared by one rename: a view that is here needs no look at its files.
        if view is None:
            require_allowed("fetch", workspace, dataset, digest, follow or address.named_ref)
            meter = Meter.of(progress, Phase.FETCHING)
            more: dict[str, Any] = {"meter": meter, "cancel": cancel, "facts": {"digest": digest}}
            with step(workspace, "fetch", dataset, writer=writer, **more) as job, views.draft() as draft:
                meter.listed(manifest.files, manifest.bytes)
                with readers_told(job, digest, follow) as order:
                    stats = _fill_draft(job, digest, draft, peers=peers, order=order)
                    meter.enter(Phase.PUBLISHING)
                    view = draft.publish(dataset, digest, manifest.entries())
                job.note(files=manifest.files, bytes=manifest.bytes, bytes_fetched=stats.fetched)
        views.touch(dataset, digest)
        # A ref may name only what is here, so it moves last. An address by digest moves none.
        if ref := follow or address.named_ref:
            point(workspace, dataset, ref, digest)
    reused = max(0, manifest.bytes - stats.fetched)
    pins = read_pins(workspace.catalog, dataset, digest)
    facts = (view, manifest.files, manifest.bytes, stats.fetched, reused)
    return Version(dataset, digest, *facts, pins=pins, peers=stats.replicas)


@contextmanager
def present(
    workspace: Workspace, dataset: str, digest: str, purpose: str, cancel: Event | None = None
) -> Iterator[Path]:
    """Hold a version on this node during the block, and give its folder. A version that isn't here is fetched.

    `purpose` says what the holder does, for people; `cancel` stops the fetching in time.

    Raises:
        UsageError: There is no such version, or no stored spec has its sources.
        TransferFailed: A pin is gone everywhere; the objects are named.
    """
    # The lease comes first: a collection between looking and reading would take the version.
    with workspace.cache.leases.hold(LeaseKind.READER, dataset, digest, purpose):
        view = workspace.cache.views.path(dataset, digest)
        if view is None:
            view = fetch_version(workspace, Address(dataset, digest), purpose, cancel=cancel).path
        yield view


def repair_files(
    workspace: Workspace,
    dataset: str,
    digest: str,
    entries: Sequence[Entry],
    *,
    cancel: Event | None = None,
) -> None:
    """Replace files of a version's view by sound ones. Bytes that the cache doesn't hold are fetched again.

    Raises:
        StagegateError: A plugin does not allow it, as for a fetch.
        UsageError: No stored spec has the version's sources.
        TransferFailed: Some can't be fetched; the error names them, and their files stay. The others are replaced.
    """
    require_allowed("fetch", workspace, dataset, digest, "")
    paths = {entry.path for entry in entries}
    meter = Meter(phase=Phase.FETCHING)
    with (
        workspace.cache.leases.hold(LeaseKind.WRITER, dataset, purpose="repair") as writer,
        step(workspace, "repair", dataset, writer=writer, meter=meter, cancel=cancel, is_step=False) as job,
        workspace.cache.views.draft() as draft,
    ):
        meter.listed(len(entries), sum(entry.size for entry in entries))
        stats = _fill_draft(job, digest, draft, paths=paths)
        lost = {failure.object for failure in stats.failures}
        draft.repair(dataset, digest, (entry for entry in entries if entry.path not in lost))
    if stats.failures:
        raise TransferFailed(stats.failures)


def _fill_draft(
    job: Job,
    digest: str,
    draft: Draft,
    *,
    paths: Collection[str] | None = None,
    peers: Collection[str] = (),
    order: FetchOrder | None = None,
) -> TransferStats:
    """Hold the blobs of a version of the job's dataset, or of the given paths, in a draft.

    Those that the cache lacks are fetched: from replicas, else from the sources.

    A whole version has to be complete: the spec's `max_failed_objects` is for making versions, and does not apply. Of
    given paths each may fail. With an order, a few may; the order raises then.
    """
    workspace, dataset = job.workspace, job.dataset
    spec = spec_with_sources(workspace, dataset, digest)
    finders = [load(plugin.replicas.find) for plugin in plugins() if plugin.replicas]
    found = [find(workspace, dataset, digest, peers, job.cancel, waits=order is None) for find in finders]
    with transferring(job, spec, replicas=[replicas for replicas in found if replicas]) as (_, fill):
        transferred = fill(
            plan_origins(workspace, spec, dataset, digest, paths),
            order=order.planned if order else iter,
            max_failed=FAILURES if order else len(paths or ()),
            is_repair=paths is not None,
        )
        if order:
            order.stats = transferred.stats
        for receipt in transferred:
            if order:
                order.done(receipt)
            draft.hold(Entry(receipt.path, receipt.object.size, receipt.digest))
    if order:
        order.require_all()
    return transferred.stats
