"""What a node's cache keeps: collecting garbage, pinning and unpinning versions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.gc import Collection, collect
from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.errors import CacheError, StagegateError, UnknownRef
from prefect_stagegate.model import Address
from prefect_stagegate.operations.fleet.own_record import publish_record
from prefect_stagegate.operations.read import hold_dataset, locate
from prefect_stagegate.operations.workspace import Workspace

log = logging.getLogger(__name__)


def collect_garbage(workspace: Workspace, *, dry_run: bool = False) -> Collection:
    """Remove from this node what no ref, lease or pin needs.

    Raises:
        CacheError: The cache can't be changed.
    """
    collection = collect_volumes(workspace.cache, dry_run=dry_run)
    if collection.versions and not dry_run:
        record_collection(lambda: workspace)
    return collection


def collect_volumes(cache: Cache, *, dry_run: bool = False) -> Collection:
    """Collect on all volumes of a node. What can't be collected on a further volume is named in `kept`.

    Raises:
        CacheError: The home can't be changed.
    """
    total = collect(cache.home.layout, dry_run=dry_run)
    kept = list(total.kept)
    for volume in cache.home.further:
        try:
            collection = collect(volume.layout, dry_run=dry_run)
        except CacheError as error:
            kept.append(f"{volume.root}: {error}")
            continue
        kept += collection.kept
        total = Collection(
            total.versions + collection.versions,
            total.blobs + collection.blobs,
            total.bytes + collection.bytes,
            unreadable=tuple(dict.fromkeys(total.unreadable + collection.unreadable)),
        )
    return replace(total, kept=(*kept, *map(str, cache.home.missing)))


def record_collection(open_workspace: Callable[[], Workspace]) -> None:
    """Write the node's record without the versions that a collection removed.

    A collection needs no catalog, so one that can't be opened or written is logged.
    """
    try:
        publish_record(open_workspace())
    except StagegateError as error:
        log.warning("Versions were removed, but the node's record in the catalog still has them: %s", error)


def pin(workspace: Workspace, address: Address) -> Lease:
    """Keep a version on this node until it is unpinned.

    Raises:
        UnknownRef: The node hasn't that version.
    """
    # Held meanwhile, so that no collection takes the version before it is pinned.
    with hold_dataset(workspace.cache, address.counted(workspace.catalog.resolve), "pin") as held:
        copies = [volume for volume, _ in workspace.cache.copies(held.dataset, held.digest)]
        # A pin on a disk outlives a reboot; beside it, a copy in memory need not be kept.
        disks = [volume for volume in copies if not volume.is_tier]
        purpose = f"by {workspace.identity.name}"
        pins = [volume.leases.pin(held.dataset, held.digest, purpose) for volume in disks or copies]
        return pins[0]


def unpin(workspace: Workspace, address: Address) -> int:
    """Remove a version's pins and return how many there were.

    Raises:
        UnknownRef: The node hasn't that version, or nobody pinned it.
    """
    held = locate(workspace.cache, address.counted(workspace.catalog.resolve))
    # A version that lies on two volumes is pinned on both, which people call one pin.
    count = max(volume.leases.unpin(held.dataset, held.digest) for volume in workspace.cache.volumes)
    if not count:
        raise UnknownRef(f"{held.dataset}@{held.digest} is not pinned", hint="`stagegate ls --held` shows what is.")
    return count
