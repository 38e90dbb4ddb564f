"""Keeping a node's cache true and small: verification with repair, collection, pins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event

from prefect_stagegate.cache.gc import Collection, collect, empty_trash
from prefect_stagegate.cache.leases import Lease, LeaseKind
from prefect_stagegate.cache.verify import file_problem, verify_view
from prefect_stagegate.errors import Cancelled, StagegateError, UnknownRef
from prefect_stagegate.model import Address, Entry, Finding
from prefect_stagegate.operations import bring
from prefect_stagegate.operations.read import OpenDataset, hold_dataset, keep_dataset, locate
from prefect_stagegate.operations.workspace import Workspace

log = logging.getLogger(__name__)


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
    bytes: int
    damaged: tuple[Damage, ...]
    repaired: bool
    """Whether all that was damaged was fetched again."""


def verify(
    where: Workspace, address: Address | None = None, *, repair: bool = False, cancel: Event | None = None
) -> Verification:
    """Hash one version of this node, or all, and compare with the manifests.

    Of all, a version that a collection takes meanwhile is left out, and one that can't be repaired keeps no other from
    its turn.

    Args:
        where: Cache and catalog.
        address: The version; all on this node when None.
        repair: Fetch what is damaged again through its origins. What can't be had any more stays as it is.
        cancel: Set it to stop in time.

    Raises:
        UsageError: The node hasn't that version.
        TransferFailed: A repair found its object nowhere. The first such error, after all had their turn.
    """
    if address:
        found = locate(where.cache, address)
        views = [(found.dataset, found.digest)]
    else:
        views = list(where.cache.views.all())
    versions = files = size = 0
    damaged: list[Damage] = []
    failed: list[StagegateError] = []
    for dataset, digest in views:
        with ExitStack() as holding:
            held = _held(holding, where, Address(dataset, digest), named=address is not None)
            if held is None:
                continue
            manifest = where.catalog.manifest(dataset, digest)
            bad = list(verify_view(held.path, manifest.entries(), read=_stopping(cancel)))
        versions, files, size = versions + 1, files + manifest.files, size + manifest.bytes
        damaged.extend(Damage(dataset, digest, finding) for _, finding in bad)
        if bad and repair:
            failed.extend(_mend(where, dataset, digest, [entry for entry, _ in bad], cancel))
    if failed:
        raise failed[0]
    return Verification(versions, files, size, tuple(damaged), repaired=repair and bool(damaged))


def _held(holding: ExitStack, where: Workspace, address: Address, *, named: bool) -> OpenDataset | None:
    """Hold a version; None when it went since the node's versions were listed."""
    try:
        return holding.enter_context(keep_dataset(where.cache, address, "verify"))
    except UnknownRef:
        if named:
            raise
        return None


def _stopping(cancel: Event | None) -> Callable[[int], None]:
    """Told of every piece that is read, it ends the reading when that is asked for."""

    def check(_: int) -> None:
        if cancel and cancel.is_set():
            raise Cancelled("The verification was stopped")

    return check


def _mend(
    where: Workspace, dataset: str, digest: str, entries: list[Entry], cancel: Event | None
) -> Iterator[StagegateError]:
    """Mend a view; gives the error when it can't be had."""
    try:
        _fetch_again(where, dataset, digest, entries, cancel)
    except Cancelled:
        raise
    except StagegateError as error:
        log.error("%s@%s could not be repaired: %s", dataset, digest, error)  # noqa: TRY400 - it is raised later
        yield error


def _fetch_again(where: Workspace, dataset: str, digest: str, entries: list[Entry], cancel: Event | None) -> None:
    """Fetch the bytes of damaged files again and put them in place. When that fails the view stays as it is."""
    cache = where.cache
    with cache.leases.hold(LeaseKind.WRITER, dataset, what="repair") as writer:
        for entry in entries:
            # Another view's repair may have brought the blob already.
            if file_problem(cache.layout.blob(entry.digest), entry):
                cache.blobs.forget(entry.digest)
        bring.mend(where, writer, dataset, digest, entries, cancel=cancel)
    empty_trash(cache.layout)


def collect_garbage(where: Workspace, *, dry_run: bool = False) -> Collection:
    """Remove from this node what no ref, lease or pin needs.

    Raises:
        CacheError: The cache can't be changed.
    """
    return collect(where.cache.layout, dry_run=dry_run)


def pin(where: Workspace, address: Address) -> Lease:
    """Keep a version on this node until it is unpinned.

    Raises:
        UnknownRef: The node hasn't that version.
    """
    with hold_dataset(where.cache, address, "pin") as held:
        return where.cache.leases.pin(held.dataset, held.digest, f"pinned by {where.identity.name}")


def unpin(where: Workspace, address: Address) -> int:
    """Take a version's pins away; returns how many there were.

    Raises:
        UnknownRef: The node hasn't that version, or nobody pinned it.
    """
    held = locate(where.cache, address)
    count = where.cache.leases.unpin(held.dataset, held.digest)
    if not count:
        raise UnknownRef(f"Nobody pinned {held.dataset}@{held.digest}", hint="`stagegate ls` shows who holds what.")
    return count
