"""Keeping beside a version what its staging transferred, for its reports."""

from __future__ import annotations

from prefect_stagegate.catalog.kept_records import TRANSFERS, put_kept
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Job, Observer
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Version
from prefect_stagegate.model.transfers import NAME, PLACES, Traffic, TransferRecord
from prefect_stagegate.transport.transfer import TransferStats


class TransferFigures(Observer):
    """Records a staging that fetched bytes, in place of an earlier one of the version."""

    def ended(self, job: Job) -> None:
        """Record the figures, now that nothing depends on them."""
        if job.meter and job.meter.stats.fetched and isinstance(job.result, Version):
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
