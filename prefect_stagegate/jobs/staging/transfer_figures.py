"""Keeping beside a version what its staging transferred, for its reports."""

from __future__ import annotations

import logging

from prefect_stagegate.catalog.kept_records import TRANSFERS, put_kept
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CatalogError
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.transfers import NAME, PLACES, Traffic, TransferRecord
from prefect_stagegate.transport.transfer import TransferStats

log = logging.getLogger(__name__)


def keep_transfer(workspace: Workspace, dataset: str, digest: str, stats: TransferStats) -> None:
    """Record a staging that fetched bytes, in place of an earlier one of the version.

    An error of the catalog is logged: the version is complete without this record.
    """
    if not stats.fetched:
        return
    try:
        put_kept(workspace.catalog, TRANSFERS, _record(workspace, stats), dataset, digest=digest)
    except CatalogError as error:
        log.warning("The figures of this transfer are not kept: %s", error)


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
