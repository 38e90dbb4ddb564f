"""Run jobs and their steps, transfer objects into the cache, and move this node's copy of a ref.

    with step(workspace, "promote", dataset) as job:
        …
        job.note(digest=digest)

Staging, fetching a version and repairing files promise this, so that a crash, a power cut or another job at any point
leaves the old state or the new one:

1. A writer's lease on the dataset is held from before the first look into the cache until the last ref has moved. No
   collection takes the dataset's views meanwhile, and other processes see the job.
2. What comes in is linked into a draft at once: a collection takes a blob without a second link.
3. A transfer waits for its slots of limits before it opens a source.
4. Space for what the plan fetches is claimed before the first byte. When versions are collected for it, a second draft
   (`kept`) holds what the plan reuses. A repair may also use the bytes that are kept free.
5. Replicas (other nodes of the site) are asked first, then the source, then its mirrors. All bytes are verified.
6. A version is published when all of it is here: first its view, by one rename, then its records, then the ref.
7. What came in stays for the next run, however the job ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache, partial
from typing import Any

from prefect_stagegate.cache.job_progress import remove_progress, write_progress
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.views import Draft
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Job, Observer, load, plugins
from prefect_stagegate.errors import CacheError, Cancelled, CatalogError
from prefect_stagegate.jobs.staging.open_sources import Sources, open_sources
from prefect_stagegate.jobs.upkeep.eviction import claim_space, space_for
from prefect_stagegate.model import PlannedObject, Promotion, Receipt, Version
from prefect_stagegate.model.transfers import NAME, PLACES, Traffic, TransferRecord
from prefect_stagegate.redaction import redact
from prefect_stagegate.sources.replica import ReplicaSet
from prefect_stagegate.spec import Spec
from prefect_stagegate.transport.transfer import Limits, Transfer, TransferStats, transfer
from prefect_stagegate.transport.transfer.progress import repeating
from prefect_stagegate.workspace import Workspace

STOPS = (GeneratorExit, KeyboardInterrupt, SystemExit, Cancelled)
"""What a job raises that its caller ended."""
Fill = Callable[..., Transfer]
INTERVAL = 1.0
"""Seconds between two records; a job that ends sooner writes none."""
GRACE = 1.0
"""Seconds that the end of a job waits for a record that is being written."""
_failed: set[str] = set()
"""The observers whose failure was logged."""
log = logging.getLogger(__name__)


OBSERVERS: dict[str, Callable[[Job], bool]] = {
    f"{__name__}:RecordedProgress": lambda job: job.meter is not None,
    f"{__name__}:TransferFigures": lambda job: job.name == "stage",
}
"""The core's own observers; see `Plugin.observers`."""


@contextmanager
def step(workspace: Workspace, name: str, dataset: str, **more: Any) -> Iterator[Job]:
    """Have observers look on at the job or step that the block is; `more` are further fields of `Job`."""
    job = Job(workspace, name, dataset, **more)
    with ExitStack() as observers:
        for place, looks_on in _observers().items():
            with _unfailing(place):
                if looks_on(job):
                    observer: Observer = load(place)()
                    observers.callback(_unfailing(place)(observer.ended), job)
                    observer.begun(job)
        began = time.perf_counter()
        try:
            yield job
        except BaseException as error:
            job.error, job.outcome = error, "stopped" if isinstance(error, STOPS) else "error"
            raise
        finally:
            job.seconds = time.perf_counter() - began


@contextmanager
def transferring(job: Job, spec: Spec, *, replicas: Sequence[ReplicaSet] = ()) -> Iterator[tuple[Sources, Fill]]:
    """Open a spec's sources for a transfer of a job, as soon as the limits admit it; see `_fill`."""
    with (
        job.workspace.admit(spec, job.cancel) if job.workspace.admit else nullcontext(),
        open_sources(job.workspace, spec, replicas=replicas) as sources,
        job.workspace.cache.views.draft() as kept,
    ):
        yield sources, partial(_fill, job, sources, kept)


def _fill(
    job: Job,
    sources: Sources,
    kept: Draft,
    plan: Iterator[PlannedObject],
    *,
    max_failed: int,
    is_repair: bool = False,
    order: Callable[[Iterator[PlannedObject]], Iterator[PlannedObject]] = iter,
) -> Transfer:
    """Transfer the bytes of every planned object into the cache, verified; `order` passes the plan on in another order.

    Raises:
        NoSpace: The objects don't fit, and a collection can't free enough. Raised before the first byte, as far as
            `claim_space` says.
        TransferFailed: More than `max_failed` objects failed. It names each with its reason.
    """
    workspace = job.workspace
    assert job.writer  # noqa: S101 - whoever writes has a lease
    assert job.meter  # noqa: S101
    space = space_for(workspace, job.writer, is_repair=is_repair)
    transferred = transfer(
        order(claim_space(workspace, space, plan, sources.groups, kept)),
        sources.groups,
        workspace.cache,
        space=space,
        limits=workspace.settings.of(Limits),
        progress=job.meter,
        cancel=job.cancel,
        max_failed=max_failed,
        processes=partial(_processes, workspace),
    )
    job.meter.stats = stats = transferred.stats

    def receipts() -> Generator[Receipt]:
        with step(workspace, "transfer", job.dataset, is_current=False, result=stats) as transferring:
            try:
                yield from transferred
            finally:
                transferring.note(objects=stats.objects, bytes=stats.fetched, bytes_reused=stats.reused)

    return Transfer(receipts(), stats)


def _processes(workspace: Workspace) -> int:
    from prefect_stagegate.environment.limits import available_cores

    return workspace.settings.of(Limits).processes or available_cores()


def point(workspace: Workspace, dataset: str, ref: str, digest: str, staged: Version | None = None) -> None:
    """Make the node's copy of a ref name a version, if the version is here.

    Ends when the copy names what the catalog's ref names, or the catalog's version isn't here. `staged` tells observers
    the facts of a version that the catalog has only just got.

    Raises:
        CacheError: The copy can't be written.
    """
    with step(workspace, "point", dataset, is_step=False, result=staged) as job:
        while copied_digest(workspace, dataset, ref) != digest and workspace.cache.views.path(dataset, digest):
            # Under a lease, so that no collection takes the view between the look and the move.
            with workspace.cache.leases.hold(LeaseKind.READER, dataset, digest, f"move {ref}"):
                if workspace.cache.views.path(dataset, digest) is None:
                    break
                workspace.cache.refs.put(dataset, ref, digest)
                job.note(digest=digest)
            # Others may have moved the catalog's ref since the caller read it, and this copy before the caller did.
            head = workspace.catalog.ref(dataset, ref)
            digest = head.digest if head else digest


def copied_digest(workspace: Workspace, dataset: str, ref: str) -> str | None:
    """The digest that the node's copy names; None for a damaged or suspended one, too: it will be replaced."""
    try:
        return workspace.cache.refs.get(dataset, ref)
    except CatalogError:
        return None


def follow(workspace: Workspace, moved: Promotion) -> None:
    """Move the node's copy after the catalog's ref moved. A failure is logged: the catalog's move stands."""
    try:
        point(workspace, moved.dataset, moved.ref, moved.digest)
    except CacheError as error:
        log.warning("%s@%s moved in the catalog, but this node's copy did not: %s", moved.dataset, moved.ref, error)


@cache
def _observers() -> dict[str, Callable[[Job], bool]]:
    return OBSERVERS | {place: looks_on for plugin in plugins() for place, looks_on in plugin.observers.items()}


@contextmanager
def _unfailing(place: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - who looks on ends no job
        if place not in _failed:
            _failed.add(place)
            log.warning("The observer %s failed: %s", place, redact(f"{type(error).__name__}: {error}"))


class RecordedProgress(Observer):
    """Records the progress of a writer's job while it lasts, until a record can't be written."""

    def __init__(self) -> None:
        self._recording = ExitStack()
        self._is_recorded = False

    def begun(self, job: Job) -> None:
        """Record in a thread of its own: those of the transfer must not wait for the volume."""
        layout, writer, meter = job.workspace.cache.layout, job.writer, job.meter
        if writer is None or meter is None:
            return

        def write() -> None:
            self._is_recorded = True
            write_progress(layout, writer.id, meter.snapshot())

        self._recording.enter_context(repeating(write, INTERVAL, grace=GRACE))

    def ended(self, job: Job) -> None:
        """Remove the record: without its lease, which ends next, it counts no more."""
        self._recording.close()
        with suppress(OSError):
            if job.writer and self._is_recorded:
                remove_progress(job.workspace.cache.layout, job.writer.id)


class TransferFigures(Observer):
    """Records a staging that fetched bytes, in place of an earlier one of the version."""

    def ended(self, job: Job) -> None:
        """Record the figures, now that nothing depends on them."""
        if job.meter and job.meter.stats.fetched and isinstance(job.result, Version):
            # Late: few of the jobs that import this module transfer.
            from prefect_stagegate.catalog.kept_records import TRANSFERS, put_kept

            record = _record(job.workspace, job.meter.stats)
            put_kept(job.workspace.catalog, TRANSFERS, record, job.dataset, digest=job.result.digest)


def _record(workspace: Workspace, stats: TransferStats) -> TransferRecord:
    traffic = [Traffic(tier, name[:NAME], objects, size) for (tier, name), (objects, size) in stats.places.items()]
    traffic.sort(key=lambda place: (-place.bytes, place.name))
    return TransferRecord(
        at=stamp(now()),
        node=workspace.settings.node,
        seconds=round(stats.wall, 3),
        fetched=stats.fetched,
        resumed=stats.resumed,
        traffic=tuple(traffic[:PLACES]),
        more_places=max(0, len(traffic) - PLACES),
        network=round(stats.unbusy, 3),
        hashing=round(stats.seconds["hashing"], 3),
        disk=round(stats.seconds["disk"], 3),
        backoff=round(stats.seconds["waiting"], 3),
        retries=stats.retries,
    )
