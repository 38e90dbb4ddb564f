"""Staging: from a spec to a version that lies complete in this node's cache.

    list_sources → plan_transfer → transfer_objects → publish_version

Each step is a stream of what the step before gives, so copying starts while listing goes on and memory does not grow
with the number of objects. `stage` is the four in a row, unless the sources list what they listed before
(`unchanged.py`); `bring.py` begins with the origins of a version instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from tempfile import SpooledTemporaryFile
from threading import Event
from typing import IO

from prefect_stagegate.cache.leases import Lease, LeaseKind
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.views import Draft
from prefect_stagegate.cache.volume import folds_case
from prefect_stagegate.catalog import RefAction, RefEntry
from prefect_stagegate.errors import BlobVanished, RefConflict, StagegateError, TransferFailed, UsageError
from prefect_stagegate.manifest import Manifest, Seal, seal
from prefect_stagegate.model import LATEST, Address, Entry, FailedObject, PlannedObject, Receipt, Version
from prefect_stagegate.operations.address import SpecLike, parse
from prefect_stagegate.operations.gating.policy import adopt_first_policy, proposed_changes
from prefect_stagegate.operations.staging.fetch import bring
from prefect_stagegate.operations.staging.ledger import Ledger
from prefect_stagegate.operations.staging.listing import begin_listing
from prefect_stagegate.operations.staging.missing_objects import expected, require_complete
from prefect_stagegate.operations.staging.origins import plan_origins, spec_with_sources
from prefect_stagegate.operations.staging.paths import Paths
from prefect_stagegate.operations.staging.sources import Sources, open_sources
from prefect_stagegate.operations.staging.unchanged import Listed, ListingDigest, Unchanged, spool
from prefect_stagegate.operations.upkeep.eviction import claimed, space_for
from prefect_stagegate.operations.upkeep.node_refs import point
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.plan import check_names, plan_object
from prefect_stagegate.spec import Spec
from prefect_stagegate.transfer import Limits, Progress, Transfer, transfer

BATCH = 512
"""Objects whose pins are looked up in one query."""
SPOOLED = 16 << 20
"""Bytes of a listing that are kept in memory until it is known whether it changed; further ones go to a file."""
LEARNT = 16_384
"""Origins that are learnt in one transaction."""
TRIES = 3
"""How often a staging begins again because a collection took a blob that it counted on."""
REF_TRIES = 5
"""How often staging tries to move `latest` while others move it too."""


def stage(
    workspace: Workspace, what: SpecLike | Address, *, progress: Progress | None = None, cancel: Event | None = None
) -> Version:
    """Make a version from a spec, or bring an existing version to this node.

    Args:
        workspace: Cache and catalog.
        what: A spec, which is listed and becomes `latest`; or a version's address, which is fetched as it was.
        progress: Told what happens, from several threads.
        cancel: Set it to stop in time; what was fetched stays for the next run.

    Raises:
        StagegateError: Nothing was published, and every ref stays.
    """
    named = parse(what)
    with workspace.cache.leases.hold(LeaseKind.WRITER, named.dataset, what="stage") as writer:
        if isinstance(named, Address):
            return bring(workspace, named, writer, progress=progress, cancel=cancel)
        # Each try's draft stays open until the end, and holds what was fetched for it.
        with ExitStack() as drafts:
            for tries_left in reversed(range(TRIES)):
                draft, kept = (drafts.enter_context(workspace.cache.views.draft()) for _ in range(2))
                try:
                    return _stage(workspace, named, writer, draft, kept, progress, cancel)
                except BlobVanished:
                    if not tries_left:
                        raise
    raise AssertionError("unreachable")


def _stage(
    workspace: Workspace,
    spec: Spec,
    writer: Lease,
    draft: Draft,
    kept: Draft,
    progress: Progress | None,
    cancel: Event | None,
) -> Version:
    with workspace.admit(spec, cancel), open_sources(workspace, spec) as sources, SpooledTemporaryFile(SPOOLED) as file:
        workspace.catalog.load()  # while the sources are listed
        unchanged = Unchanged(workspace, spec, sources)
        planned = _planned(workspace, spec, sources, list_sources(sources, progress, cancel), unchanged, file)
        transferred = transfer_objects(
            workspace, spec, sources, planned, writer, kept, progress=progress, cancel=cancel
        )
        receipts = unchanged.received(transferred)
        first = next(receipts, None)
        if unchanged.manifest:
            return _last_version(workspace, spec, unchanged.manifest)
        received = chain([first] if first else [], receipts)
        version = publish_version(workspace, spec, received, draft, failures=transferred.stats.failures)
        unchanged.note(version.digest)
        return version


def _planned(
    workspace: Workspace, spec: Spec, sources: Sources, listed: Iterable[Listed], unchanged: Unchanged, file: IO[bytes]
) -> Iterator[PlannedObject]:
    """The plan; nothing when the listing is the last one. It is read by a thread of the transfer's, as it may hang."""
    if last := unchanged.last():
        digest = ListingDigest(spec, sources)
        listed = spool(listed, digest, file)
        if unchanged.recognize(last, digest):
            return
    yield from plan_transfer(workspace, spec, sources, listed)


def _last_version(workspace: Workspace, spec: Spec, manifest: Manifest) -> Version:
    """The version that `latest` names, staged again unchanged."""
    dataset, digest = manifest.dataset, manifest.digest
    workspace.cache.views.touch(dataset, digest)
    if spec.max_failed_objects:
        workspace.catalog.put_failed(dataset, digest, ())
    adopt_first_policy(workspace, spec)
    point(workspace, dataset, LATEST, digest)
    facts = (workspace.cache.layout.view(dataset, digest), manifest.files, manifest.bytes, 0, manifest.bytes)
    pins, proposed = workspace.catalog.pins(dataset, digest), proposed_changes(workspace, spec)
    return Version(dataset, digest, *facts, pins=pins, proposed=proposed)


def preview(workspace: Workspace, named: Spec | Address) -> Iterator[PlannedObject]:
    """Plan only: what `stage` would do with each object. Changes nothing but what the node remembers."""
    if isinstance(named, Address):
        digest = workspace.catalog.resolve(named)
        spec = spec_with_sources(workspace, named.dataset, digest)
        yield from plan_origins(workspace, spec, named.dataset, digest)
        return
    with open_sources(workspace, named) as sources:
        yield from plan_transfer(workspace, named, sources, list_sources(sources))


def list_sources(sources: Sources, progress: Progress | None = None, cancel: Event | None = None) -> Iterator[Listed]:
    """What every source of a spec holds and the spec takes, as a stream.

    Raises:
        SourceError: A source can't be listed.
    """
    for position, (selection, group) in enumerate(zip(sources.selections, sources.groups, strict=True)):
        stream = selection.taken(begin_listing(group.primary, selection.wants, cancel))
        while batch := list(islice(stream, BATCH)):
            if progress:
                progress.listed(len(batch), sum(listed.size for listed in batch))
            for listed in batch:
                yield Listed(position, listed)


def plan_transfer(
    workspace: Workspace, spec: Spec, sources: Sources, listed: Iterable[Listed]
) -> Iterator[PlannedObject]:
    """Decide about each listed object by what this node and the catalog remember.

    Raises:
        UsageError: Two objects want one path or twins of one, or a path can't stand in a manifest.
        SourceUnavailable: A listing names an object twice, or leaves out one of the last version that is there.
    """
    head = workspace.catalog.ref(spec.dataset, LATEST)
    paths = Paths(sources.urls, folds_case=folds_case(workspace.cache.root))
    if head:
        _learn(workspace, sources, head, paths)
    stream = iter(listed)
    while batch := list(islice(stream, BATCH)):
        wanted = [sources.selections[one.source].path(one.object.key) for one in batch]
        check_names((path, one.object.key, sources.urls[one.source]) for path, one in zip(wanted, batch, strict=True))
        known = _recall(workspace, sources, batch)
        planned = [_decide(workspace, sources, *each) for each in zip(batch, wanted, known, strict=True)]
        paths.take(planned)
        yield from planned
    if head and paths.lack():
        require_complete(workspace.catalog.origins(spec.dataset, head.digest), sources, paths)


def _decide(workspace: Workspace, sources: Sources, one: Listed, path: str, digest: str | None) -> PlannedObject:
    held = digest is not None and workspace.cache.blobs.holds(digest, one.object.size)
    rehash = sources.specs[one.source].rehash
    return plan_object(one.object, path=path, source=one.source, remembered=digest, held=held, rehash=rehash)


def transfer_objects(
    workspace: Workspace,
    spec: Spec,
    sources: Sources,
    planned: Iterable[PlannedObject],
    writer: Lease,
    kept: Draft,
    *,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> Transfer:
    """Bring the bytes of every planned object into the cache, verified.

    Args:
        workspace: Cache and catalog.
        spec: What the objects were listed by.
        sources: The spec's, opened.
        planned: What is to happen to each object.
        writer: The caller's lease on the dataset.
        kept: Holds what is reused while room is made.
        progress: Told what happens, from several threads.
        cancel: Set it to stop in time; what was fetched stays for the next run.

    Raises:
        NoSpace: They don't fit, and what may go is not enough; told before the first byte, unless the plan takes long.
        TransferFailed: More objects failed than the spec's `max_failed_objects`; each is named with its reason.
    """
    space = space_for(workspace, writer)
    return transfer(
        claimed(workspace, space, iter(planned), sources.groups, kept),
        sources.groups,
        workspace.cache,
        space=space,
        limits=Limits.of(workspace.settings),
        progress=progress,
        cancel=cancel,
        max_failed=spec.max_failed_objects,
    )


def publish_version(
    workspace: Workspace,
    spec: Spec,
    receipts: Iterable[Receipt],
    draft: Draft,
    *,
    failures: Sequence[StagegateError] = (),
) -> Version:
    """Make a version of the received objects: its view, its records in the catalog, and the ref `latest`.

    Args:
        workspace: Cache and catalog.
        spec: What the objects were listed by.
        receipts: The objects, as they come in.
        draft: Becomes the view; what was fetched is held by it at once.
        failures: What the objects met that may be left out; looked at when the receipts have ended.

    Raises:
        BlobVanished: A collection took a blob that the cache had when the objects were planned.
        UsageError: There are no objects, or their paths don't make a tree.
        TransferFailed: Every object failed.
        CacheError, CatalogError: The view or a record can't be written; every ref stays.
    """
    urls = [source.url for source in spec.sources]
    ledger = Ledger(urls)
    for receipt in receipts:
        ledger.add(receipt)
        if receipt.fetched:  # what the cache had is held by some view
            draft.hold(Entry(receipt.path, receipt.object.size, receipt.digest))
    sealed = seal(ledger.entries())
    if failures and not sealed.files:
        raise TransferFailed(failures)
    if not sealed.files:
        raise UsageError(
            f"The sources of {spec.dataset} hold no objects that the spec lets in: {', '.join(urls)}",
            hint="Check each `url:` and its filters; `stagegate stage SPEC --dry-run` lists what is let in.",
            dataset=spec.dataset,
        )
    dataset, digest, views = spec.dataset, sealed.digest, workspace.cache.views
    view = views.path(dataset, digest)
    if view is None:
        view = draft.publish(dataset, digest, ledger.entries())
    elif rotten := Quarantine(workspace.cache.layout).rotten_files(view, ledger.entries()):
        draft.mend(dataset, digest, rotten)
    views.touch(dataset, digest)
    failed = tuple(FailedObject.of(failure) for failure in failures)
    if failed or spec.max_failed_objects:
        workspace.catalog.put_failed(dataset, digest, failed)
    new = _record(workspace, spec, sealed, ledger)
    point(workspace, dataset, LATEST, digest)
    facts = (sealed.files, sealed.bytes, ledger.fetched, ledger.reused, new, failed, ledger.pins())
    return Version(dataset, digest, view, *facts, proposed=proposed_changes(workspace, spec))


def _learn(workspace: Workspace, sources: Sources, head: RefEntry, paths: Paths) -> None:
    """Teach this node what the catalog knows about the pins of the newest version, whoever staged it, and its paths.

    Strong pins only: a file of another node may have the name, size and time of one here, and a file that changed
    within its clock's grain keeps its time.
    """
    identities = sources.identities
    origins = workspace.catalog.origins(head.dataset, head.digest)
    while some := list(islice(origins, LEARNT)):
        paths.expect(expected(some, sources))
        workspace.cache.memory.learn(
            (identities[origin.source], origin.key, origin.pin, origin.size, origin.digest)
            for origin in some
            if origin.source in identities and origin.pin.strength == "strong"
        )


def _recall(workspace: Workspace, sources: Sources, batch: list[Listed]) -> list[str | None]:
    identities = [group.primary.identity for group in sources.groups]
    return workspace.cache.memory.recall_many([(identities[one.source], one.object) for one in batch])


def _record(workspace: Workspace, spec: Spec, sealed: Seal, ledger: Ledger) -> bool:
    """Write what changed into the catalog; True when `latest` names the version for the first time, by this stager.

    One whose stager died before that is new still, since nobody was told of it; of two stagers, one is told.
    """
    dataset, digest, canonical = spec.dataset, sealed.digest, spec.canonical()
    adopt_first_policy(workspace, spec)
    head = workspace.catalog.ref(dataset, LATEST)
    if head and head.digest == digest and not ledger.fetched and workspace.catalog.spec(dataset, digest) == canonical:
        return False
    workspace.catalog.put_spec(dataset, digest, canonical)  # first: a version can't be brought or repaired without one
    sums, streams = (sealed.files, sealed.bytes), (ledger.entries(), ledger.origins())
    new = workspace.catalog.put_version(dataset, digest, *sums, *streams, ledger.pins())
    if not spec.max_failed_objects:
        workspace.catalog.put_failed(dataset, digest, ())  # made whole, though it may have lacked something before
    if not _move_latest(workspace, dataset, digest, head):
        return False
    return new or [entry.digest for entry in workspace.catalog.history(dataset, LATEST)].count(digest) == 1


def _move_latest(workspace: Workspace, dataset: str, digest: str, head: RefEntry | None) -> bool:
    """Move `latest`; of two stagers that finish at once, both succeed and the later one wins.

    Returns:
        Whether this one moved it; False when it names the version already.
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
            head = workspace.catalog.ref(dataset, LATEST)
        else:
            return True
    raise AssertionError("unreachable")
