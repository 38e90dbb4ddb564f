"""What a node's cache keeps: collecting garbage, pinning and unpinning versions."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prefect_stagegate.cache.gc import Collection, collect
from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.errors import StagegateError, UnknownRef
from prefect_stagegate.jobs.read import hold_dataset, locate
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.model import Address
from prefect_stagegate.workspace import Workspace

log = logging.getLogger(__name__)


def collect_garbage(workspace: Workspace, *, dry_run: bool = False) -> Collection:
    """Remove from this node what no ref, lease or pin needs.

    Raises:
        CacheError: The cache can't be changed.
    """
    collection = collect(workspace.cache.layout, dry_run=dry_run)
    if collection.versions and not dry_run:
        report_collection(lambda: workspace)
    return collection


def report_collection(open_workspace: Callable[[], Workspace]) -> None:
    """Have observers see that versions were removed. That needed no catalog, so one that can't be opened is logged."""
    try:
        with step(open_workspace(), "collect", "", is_step=False):
            pass
    except StagegateError as error:
        log.warning("Versions were removed, but what the catalog says of this node still has them: %s", error)


def pin(workspace: Workspace, address: Address) -> Lease:
    """Keep a version on this node until it is unpinned.

    Raises:
        UnknownRef: The node hasn't that version.
    """
    # Held meanwhile, so that no collection takes the version before it is pinned.
    with (
        hold_dataset(workspace.cache, address.counted(workspace.catalog.resolve), "pin") as held,
        step(workspace, "pin", held.dataset, is_step=False),
    ):
        return workspace.cache.leases.pin(held.dataset, held.digest, f"by {workspace.identity.name}")


def unpin(workspace: Workspace, address: Address) -> int:
    """Remove a version's pins and return how many there were.

    Raises:
        UnknownRef: The node hasn't that version, or nobody pinned it.
    """
    held = locate(workspace.cache, address.counted(workspace.catalog.resolve))
    with step(workspace, "pin", held.dataset, is_step=False):
        count = workspace.cache.leases.unpin(held.dataset, held.digest)
    if not count:
        raise UnknownRef(f"{held.dataset}@{held.digest} is not pinned", hint="`stagegate ls --held` shows what is.")
    return count
