"""Observers that record a writer's progress beside its lease, and what a staging transferred beside its version."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from prefect_stagegate.cache.job_progress import remove_progress, write_progress
from prefect_stagegate.catalog.kept_records import TRANSFERS, put_kept
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Job, Observer
from prefect_stagegate.model import Version
from prefect_stagegate.model.transfers import NAME, PLACES, Traffic, TransferRecord
from prefect_stagegate.transport.transfer import TransferStats
from prefect_stagegate.transport.transfer.progress import repeating
from prefect_stagegate.workspace import Workspace

INTERVAL = 1.0
"""Seconds between two records; a job that ends sooner writes none."""
GRACE = 1.0
"""Seconds that the end of a job waits for a record that is being written."""


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
