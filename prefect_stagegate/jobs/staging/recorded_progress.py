"""Recording what a writer does beside its lease, so that other processes of the node can show it."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from prefect_stagegate.cache.job_progress import remove_progress, write_progress
from prefect_stagegate.doors import Job, Observer
from prefect_stagegate.transport.transfer.progress import repeating

INTERVAL = 1.0
"""Seconds between two records; a job that ends sooner writes none."""
GRACE = 1.0
"""Seconds that the end of a job waits for a record that is being written."""


class RecordedProgress(Observer):
    """Records the progress of a writer's job while it lasts, until a record can't be written."""

    def __init__(self) -> None:
        self._recording = ExitStack()

    def begun(self, job: Job) -> None:
        """Record in a thread of its own: those of the transfer must not wait for the volume."""
        layout, writer, meter = job.workspace.cache.layout, job.writer, job.meter
        if writer is None or meter is None:
            return
        record = repeating(lambda: write_progress(layout, writer.id, meter.snapshot()), INTERVAL, grace=GRACE)
        self._recording.enter_context(record)

    def ended(self, job: Job) -> None:
        """Remove the record: without its lease, which ends next, it counts no more."""
        self._recording.close()
        with suppress(OSError):
            if job.writer:
                remove_progress(job.workspace.cache.layout, job.writer.id)
