"""Bringing: fill this node with a version that the catalog knows, through the version's origins and their mirrors."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from threading import Event

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import LATEST, Action, Address, Origin, PlannedObject, SourceObject, Version
from prefect_stagegate.operations.address import read_spec
from prefect_stagegate.operations.node_refs import point
from prefect_stagegate.operations.sources import open_sources
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.spec import Spec
from prefect_stagegate.transfer import Limits, Progress, transfer


def bring(
    where: Workspace, address: Address, *, progress: Progress | None = None, cancel: Event | None = None
) -> Version:
    """Bring a version to this node. The caller holds a writer's lease on the dataset.

    The node's copy of the ref moves after the view is complete; the catalog's refs stay.

    Raises:
        UsageError: There is no such version, or no stored spec has its sources.
        TransferFailed: A pin is gone everywhere; the objects are named.
        CorruptRecord: The catalog's manifest is damaged; nothing of it became visible.
    """
    dataset, digest = address.dataset, where.catalog.resolve(address)
    manifest = where.catalog.manifest(dataset, digest)
    view = where.cache.views.path(dataset, digest)
    fetched = 0
    if view is None:
        if progress:
            progress.listed(manifest.files, manifest.bytes)
        fetched = _fetch(where, dataset, digest, progress=progress, cancel=cancel)
        view = where.cache.views.publish(dataset, digest, manifest.entries())
    if not address.digest:
        point(where, dataset, address.ref or LATEST, digest)
    reused = max(0, manifest.bytes - fetched)
    return Version(dataset, digest, view, manifest.files, manifest.bytes, fetched, reused)


def fetch_again(
    where: Workspace, dataset: str, digest: str, paths: Collection[str], *, cancel: Event | None = None
) -> None:
    """Bring the blobs of some of a version's entries into the cache again, where it holds them no more.

    Raises:
        UsageError: No stored spec has the version's sources.
        TransferFailed: A pin is gone everywhere; the objects are named.
    """
    _fetch(where, dataset, digest, paths, cancel=cancel)


def _fetch(
    where: Workspace,
    dataset: str,
    digest: str,
    paths: Collection[str] | None = None,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> int:
    """Bring the blobs of a version, or of some of its paths, and tell how many bytes came over the wire."""
    spec = _spec_with_sources(where, dataset, digest)
    with where.admit(spec, cancel), open_sources(where, spec) as sources:
        planned = _plan(where, spec, dataset, digest, paths)
        # A version that exists is brought whole: what its spec lets fail is a matter of making one.
        limits = Limits.of(where.settings)
        receipts = transfer(
            planned, sources.groups, where.cache, limits=limits, progress=progress, cancel=cancel, max_failed=0
        )
        return sum(receipt.fetched for receipt in receipts)


def plan_origins(where: Workspace, dataset: str, digest: str) -> Iterator[PlannedObject]:
    """What bringing a version would do with each object.

    Raises:
        UsageError: No stored spec has the version's sources.
    """
    return _plan(where, _spec_with_sources(where, dataset, digest), dataset, digest, None)


def _plan(
    where: Workspace, spec: Spec, dataset: str, digest: str, paths: Collection[str] | None
) -> Iterator[PlannedObject]:
    for origin in where.catalog.origins(dataset, digest):
        if paths is not None and origin.path not in paths:
            continue
        position = _position(spec, origin)
        assert position is not None  # noqa: S101 - the spec was chosen for it
        held = where.cache.blobs.holds(origin.digest, origin.size)
        listed = SourceObject(origin.key, origin.size, origin.pin, origin.modified)
        yield PlannedObject(origin.path, listed, position, Action.REUSE if held else Action.FETCH, origin.digest)


def _spec_with_sources(where: Workspace, dataset: str, digest: str) -> Spec:
    """The newest stored spec that has all sources of a version: it may have been checked under one that has not.

    Raises:
        UsageError: There is none.
    """
    origins = {(one.source, one.position): one for one in where.catalog.origins(dataset, digest)}.values()
    for canonical in where.catalog.specs(dataset, digest):
        spec = read_spec(canonical)
        if all(_position(spec, origin) is not None for origin in origins):
            return spec
    urls = ", ".join(sorted({origin.source for origin in origins}))
    raise UsageError(
        f"No spec that is stored beside {dataset}@{digest} has the sources that it came from: {urls}",
        hint="Stage the version again from a spec that has them.",
        dataset=dataset,
    )


def _position(spec: Spec, origin: Origin) -> int | None:
    """Where the origin's source stands in a spec. Two sources may have one URL, and differ by their options."""
    alike = [position for position, source in enumerate(spec.sources) if source.url == origin.source]
    return origin.position if origin.position in alike else next(iter(alike), None)
