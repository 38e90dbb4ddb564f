"""Staging: from a spec to a version that lies complete in this node's cache.

    list_sources → plan_transfer → runner.fill → publish

Each step is a stream over the step before, so copying starts while listing goes on, and memory does not grow with the
number of objects. All four run, unless the sources list what they listed before (`unchanged.py`).
`fetch.py` starts from the origins of a version instead of a listing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice, repeat
from tempfile import SpooledTemporaryFile
from threading import Event
from typing import IO, Any

from prefect_stagegate.cache.job_progress import Phase
from prefect_stagegate.cache.leases import LeaseKind, folds_case
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.views import Draft
from prefect_stagegate.catalog import RefAction, RefEntry
from prefect_stagegate.catalog.version_records import (
    load_tables,
    put_failed,
    put_spec,
    put_version,
    read_origins,
    read_pins,
    staged_spec,
)
from prefect_stagegate.doors import Job, require_allowed
from prefect_stagegate.errors import BlobVanished, RefConflict, SourceBusy, StagegateError, TransferFailed, UsageError
from prefect_stagegate.jobs.address import SpecLike, parse
from prefect_stagegate.jobs.gating.policy import adopt_first_policy
from prefect_stagegate.jobs.runner import point, step, transferring
from prefect_stagegate.jobs.staging.fetch import fetch_version
from prefect_stagegate.jobs.staging.missing_objects import expected, require_complete
from prefect_stagegate.jobs.staging.open_sources import Sources, open_sources
from prefect_stagegate.jobs.staging.origins import plan_origins, spec_with_sources
from prefect_stagegate.jobs.staging.temporary_tables import Ledger, Paths
from prefect_stagegate.jobs.staging.unchanged import ListingDigest, SelectedObject, Unchanged, spool
from prefect_stagegate.model import LATEST, Address, Entry, FailedObject, Pins, PlannedObject, SourceObject, Version
from prefect_stagegate.model.manifest import Manifest, Seal, check_objects, seal
from prefect_stagegate.model.objects import plan_object
from prefect_stagegate.sources import Source, Wanted
from prefect_stagegate.spec import Spec
from prefect_stagegate.transport.transfer import Progress, TransferStats
from prefect_stagegate.transport.transfer.progress import Meter
from prefect_stagegate.transport.transfer.retry import Retrier, Stop
from prefect_stagegate.units import count_text
from prefect_stagegate.workspace import Workspace

BATCH = 512
"""Objects whose pins are looked up in one query."""
SPOOLED = 16 << 20
"""Bytes of a listing that stay in memory until its end tells whether it changed. The rest goes to a file."""
LEARNT = 16_384
"""Origins that the pin memory learns in one transaction."""
TRIES = 3
"""How often a staging is tried: a collection may take a blob that it counts on."""
REF_TRIES = 5
"""How often staging tries to move `latest` while other stagers move it too."""
LISTING_RETRIES = 3
"""How often a listing starts again. Clients of object stores repeat each of its requests, too."""


def stage(
    workspace: Workspace,
    subject: SpecLike | Address,
    *,
    peers: Collection[str] = (),
    follow: str = "",
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> Version:
    """Make a version from a spec, or fetch an existing version to this node.

    Args:
        workspace: Cache and catalog.
        subject: A spec, whose sources are listed and whose version becomes `latest`; or the address of a version.
        peers: Names of the nodes that fetch an existing version at the same time: those of this node's site read
            its sources once.
        follow: A ref whose copy on this node moves to the version, though the address names a digest.
        progress: Called as the transfer goes on, from several threads.
        cancel: Set it to stop in time; fetched bytes stay for the next run.

    Raises:
        StagegateError: Nothing was published, and no ref moved.
    """
    parsed = parse(subject)
    if isinstance(parsed, Address):
        with step(workspace, "stage", parsed.dataset, subject=parsed, cancel=cancel) as job:
            version = fetch_version(
                workspace, parsed, "stage", peers=peers, follow=follow, progress=progress, cancel=cancel
            )
            _note(job, version)
        return version
    more: dict[str, Any] = {"subject": parsed, "meter": Meter.of(progress), "cancel": cancel}
    # Each try's drafts stay open until the end, so that blobs fetched by one try are there for the next.
    with (
        workspace.cache.leases.hold(LeaseKind.WRITER, parsed.dataset, purpose="stage") as writer,
        step(workspace, "stage", parsed.dataset, writer=writer, **more) as job,
        ExitStack() as drafts,
    ):
        for tries_left in reversed(range(TRIES)):
            try:
                version = _stage_spec(job, parsed, drafts.enter_context(workspace.cache.views.draft()))
            except BlobVanished:  # a collection took a blob that the try counted on
                if not tries_left:
                    raise
            else:
                _note(job, version)
                return version
    raise AssertionError("unreachable")


def _note(job: Job, version: Version) -> None:
    job.note(digest=version.digest, bytes=version.bytes, bytes_fetched=version.bytes_fetched)
    job.result = version


def _stage_spec(job: Job, spec: Spec, draft: Draft) -> Version:
    workspace, meter = job.workspace, job.meter or Meter()
    meter.enter(Phase.LISTING)
    with transferring(job, spec) as (sources, fill), SpooledTemporaryFile(SPOOLED) as file:
        unchanged = Unchanged(workspace, spec, sources)
        listed = list_sources(workspace, spec, sources, meter, job.cancel)
        transferred = fill(
            _planned(workspace, spec, sources, listed, unchanged, file), max_failed=spec.max_failed_objects
        )
        ledger = Ledger([source.url for source in spec.sources])
        for receipt in transferred:
            unchanged.add(receipt)
            ledger.add(receipt)
            if receipt.fetched:  # a fetched blob has no link yet; the others are mostly held by some view
                draft.hold(Entry(receipt.path, receipt.object.size, receipt.digest))
        # Planning runs in a thread of the transfer, whose end tells what it found.
        if manifest := unchanged.manifest:
            require_allowed("stage", workspace, spec.dataset, manifest.digest, LATEST, manifest.entries)
            return _last_version(workspace, spec, manifest)
        meter.enter(Phase.PUBLISHING)
        version = _publish(workspace, spec, ledger, draft, transferred.stats.failures)
        point(workspace, spec.dataset, LATEST, version.digest, version)
        unchanged.note(version.digest)
        return version


def _planned(
    workspace: Workspace,
    spec: Spec,
    sources: Sources,
    listed: Iterable[SelectedObject],
    unchanged: Unchanged,
    file: IO[bytes],
) -> Iterator[PlannedObject]:
    """The plan; empty when the listing is unchanged. A thread of the transfer iterates it, since a source may hang."""
    last, stream = workspace.catalog.ref(spec.dataset, LATEST), iter(listed)
    first = list(islice(stream, 1))
    load_tables()  # imports pyarrow in the background, and would delay the first request
    listed = chain(first, stream)
    if last and unchanged.is_noted(last):
        digest = ListingDigest(spec, sources)
        listed = spool(listed, digest, file)
        if unchanged.recognize(last, digest):
            return
    yield from plan_transfer(workspace, spec, sources, listed, last)


def _last_version(workspace: Workspace, spec: Spec, manifest: Manifest) -> Version:
    """Finish a staging whose listing did not change: the version that `latest` names."""
    dataset, digest = manifest.dataset, manifest.digest
    workspace.cache.views.touch(dataset, digest)
    if spec.max_failed_objects:
        # An earlier staging of the same version may have left objects out, and this one left out none.
        put_failed(workspace.catalog, dataset, digest, ())
    proposed = adopt_first_policy(workspace, spec)
    point(workspace, dataset, LATEST, digest)
    facts = (workspace.cache.layout.view(dataset, digest), manifest.files, manifest.bytes, 0, manifest.bytes)
    return Version(dataset, digest, *facts, pins=read_pins(workspace.catalog, dataset, digest), proposed=proposed)


def preview(workspace: Workspace, subject: Spec | Address) -> Iterator[PlannedObject]:
    """Plan only: what `stage` would do with each object. Changes nothing but the pin memory."""
    if isinstance(subject, Address):
        digest = workspace.catalog.resolve(subject)
        spec = spec_with_sources(workspace, subject.dataset, digest)
        yield from plan_origins(workspace, spec, subject.dataset, digest)
        return
    with open_sources(workspace, subject) as sources:
        listed = list_sources(workspace, subject, sources)
        yield from plan_transfer(workspace, subject, sources, listed, workspace.catalog.ref(subject.dataset, LATEST))


def list_sources(
    workspace: Workspace,
    spec: Spec,
    sources: Sources,
    meter: Meter | None = None,
    cancel: Event | None = None,
) -> Iterator[SelectedObject]:
    """List every source of a spec, and stream the objects that the spec takes.

    Raises:
        SourceError: A source can't be listed.
    """
    objects = size = 0
    with step(workspace, "list", spec.dataset, is_current=False) as job:
        for position, (selection, group) in enumerate(zip(sources.selections, sources.groups, strict=True)):
            stream = selection.taken(_begin_listing(group.primary, selection.wants, cancel))
            while batch := list(islice(stream, BATCH)):
                listed_bytes = sum(listed.size for listed in batch)
                objects, size = objects + len(batch), size + listed_bytes
                if meter:
                    meter.listed(len(batch), listed_bytes)
                yield from map(SelectedObject, repeat(position), batch)
        job.note(objects=objects, bytes=size)
    if meter:
        meter.enter(Phase.FETCHING)


def _begin_listing(source: Source, wanted: Wanted, cancel: Event | None = None) -> Iterator[SourceObject]:
    """List a source. Until the first object came, start again when the server says that it is busy.

    Raises:
        SourceBusy: The server was busy in every try, or in the middle of the listing.
        Cancelled: `cancel` was set.
    """

    def start() -> tuple[SourceObject | None, Iterator[SourceObject]]:
        stream = iter(source.list(wanted))
        return next(stream, None), stream

    # Only the start is repeated: later, nobody knows which objects the caller has already.
    first, rest = Retrier(LISTING_RETRIES, Stop(cancel), TransferStats()).run(start, again=(SourceBusy,))
    return chain(() if first is None else (first,), rest)


def plan_transfer(
    workspace: Workspace, spec: Spec, sources: Sources, listed: Iterable[SelectedObject], last: RefEntry | None
) -> Iterator[PlannedObject]:
    """Plan each listed object by the pins that this node and the newest version know.

    Raises:
        UsageError: Two objects want one path or twins of one, a path can't be in a manifest, or a source has no object
            and is not one that `may_be_empty`.
        SourceUnavailable: A listing names an object twice, or leaves out one of the last version that is there.
    """
    with step(workspace, "plan", spec.dataset, is_current=False):
        urls = [source.url for source in sources.specs]
        paths = Paths(urls, folds_case=folds_case(workspace.cache.root))
        # Before the first object is planned, since plans use what the memory learns here.
        if last:
            _learn(workspace, sources, last, paths)
        stream, unlisted = iter(listed), set(range(len(spec.sources)))
        while batch := list(islice(stream, BATCH)):
            unlisted -= {entry.source for entry in batch}
            batch_paths = [sources.selections[entry.source].path(entry.object.key) for entry in batch]
            check_objects(
                [(path, entry.object, urls[entry.source]) for path, entry in zip(batch_paths, batch, strict=True)]
            )
            pinned = [(sources.groups[entry.source].primary.identity, entry.object) for entry in batch]
            digests = workspace.cache.memory.recall_many(pinned)
            planned = []
            for entry, path, digest in zip(batch, batch_paths, digests, strict=True):
                is_held = digest is not None and workspace.cache.blobs.holds(digest, entry.object.size)
                rehash = spec.sources[entry.source].rehash
                planned.append(plan_object(entry.object, path, entry.source, digest, held=is_held, rehash=rehash))
            # Before any of the batch is fetched: a conflict ends the staging.
            paths.take(planned)
            yield from planned
        # At the listing's end only: an object that is missing so far may come on a later page.
        if last and paths.lacks_expected():
            require_complete(read_origins(workspace.catalog, spec.dataset, last.digest), sources, paths)
        if empty := [spec.sources[at].url for at in sorted(unlisted) if not spec.sources[at].may_be_empty]:
            raise _nothing_selected(spec, empty)


def _nothing_selected(spec: Spec, urls: Sequence[str]) -> UsageError:
    return UsageError(
        f"The spec of {spec.dataset} selects no object of {count_text(len(urls), 'source')}: {', '.join(urls)}",
        hint="Check each `url:` and its filters by `stagegate doctor SPEC`. Write `may_be_empty: true` in a source "
        "that rightly has none at times.",
        dataset=spec.dataset,
    )


def _publish(
    workspace: Workspace, spec: Spec, ledger: Ledger, draft: Draft, failures: Sequence[StagegateError]
) -> Version:
    """Make a version of the received objects: its view, its records in the catalog, and the ref `latest`.

    `draft` holds the fetched blobs, and becomes the view.
    """
    sealed = seal(ledger.entries())
    if failures and not sealed.files:
        raise TransferFailed(failures)
    if not sealed.files:
        raise _nothing_selected(spec, [source.url for source in spec.sources])
    dataset, digest, views = spec.dataset, sealed.digest, workspace.cache.views
    require_allowed("stage", workspace, dataset, digest, LATEST, ledger.entries)
    # First the view, then the catalog's records, then the refs: each step names only what the one before completed.
    with step(workspace, "publish", dataset) as job:
        job.note(digest=digest, files=sealed.files, bytes=sealed.bytes)
        view = views.path(dataset, digest)
        if view is None:
            view = draft.publish(dataset, digest, ledger.entries())
        # The version is here already. Its rotten files are in quarantine, so their bytes were fetched again.
        elif rotten := Quarantine(workspace.cache.layout).rotten_files(view, ledger.entries()):
            draft.repair(dataset, digest, rotten)
        views.touch(dataset, digest)
        failed = tuple(FailedObject.of(failure) for failure in failures)
        # Before `latest` moves, so that whoever reads it finds what the version lacks.
        if failed or spec.max_failed_objects:
            put_failed(workspace.catalog, dataset, digest, failed)
        proposed = adopt_first_policy(workspace, spec)
        pins = ledger.pins()
        new = _record(workspace, spec, sealed, ledger, pins)
        facts = (sealed.files, sealed.bytes, ledger.fetched, ledger.reused, new, failed, pins)
        return Version(dataset, digest, view, *facts, proposed=proposed)


def _learn(workspace: Workspace, sources: Sources, last: RefEntry, paths: Paths) -> None:
    """Give this node's pin memory the pins of the newest version, whoever staged it, and expect its paths."""
    identities: dict[tuple[int, str], str] | None = None
    origins = read_origins(workspace.catalog, last.dataset, last.digest)
    while batch := list(islice(origins, LEARNT)):
        paths.expect(expected(batch, sources))
        # Strong pins only: a file of another node may have the name, size and time of one here, and a file that changed
        # within its clock's grain keeps its time.
        if strong := [origin for origin in batch if origin.pin.strength == "strong"]:
            identities = sources.identities(workspace, last) if identities is None else identities
            workspace.cache.memory.learn(
                (identity, origin.key, origin.pin, origin.size, origin.digest)
                for origin in strong
                if (identity := identities.get((origin.position, origin.source)))
            )


def _record(workspace: Workspace, spec: Spec, sealed: Seal, ledger: Ledger, pins: Pins | None) -> bool:
    """Write the version's records and move `latest`; True when this stager is the first whose `latest` names it.

    A version whose stager died before it moved `latest` is still new. Of two stagers at once, one gets True.
    """
    catalog, dataset, digest, canonical = workspace.catalog, spec.dataset, sealed.digest, spec.canonical()
    head = catalog.ref(dataset, LATEST)
    # The records are those of this very staging already, and `latest` names the version.
    if head and head.digest == digest and not ledger.fetched and staged_spec(catalog, dataset, digest) == canonical:
        return False
    # The spec comes first: a version can't be fetched or repaired without one.
    put_spec(catalog, dataset, digest, canonical)
    new = put_version(catalog, dataset, sealed, ledger.entries(), ledger.origins(), pins)
    if not spec.max_failed_objects:
        put_failed(catalog, dataset, digest, ())  # an earlier spec may have left objects out
    # `latest` moves last: whoever reads it finds the records complete.
    if not _move_latest(workspace, dataset, digest, head):
        return False
    return new or [entry.digest for entry in catalog.history(dataset, LATEST)].count(digest) == 1


def _move_latest(workspace: Workspace, dataset: str, digest: str, head: RefEntry | None) -> bool:
    """Move `latest`. Of two stagers that finish at once, both succeed and the later one wins.

    Returns:
        Whether this call moved it; False when it names the version already.
    """
    for tries_left in reversed(range(REF_TRIES)):
        if head and head.digest == digest:
            return False
        try:
            workspace.catalog.move_ref(
                dataset, LATEST, digest, head=head, action=RefAction.STAGE, who=workspace.identity
            )
        except RefConflict:
            if not tries_left:
                raise
            # Another stager was faster: read what it left, and move on from there.
            head = workspace.catalog.ref(dataset, LATEST)
        else:
            return True
    raise AssertionError("unreachable")
