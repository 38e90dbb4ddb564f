"""Recording what a writer does beside its lease, so that other processes of the node can show it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.job_progress import Phase, remove_progress, write_progress
from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.repeating import repeating
from prefect_stagegate.transport.transfer.meter import Meter
from prefect_stagegate.transport.transfer.progress import Progress

INTERVAL = 1.0
"""Seconds between two records; a job that ends sooner writes none."""
GRACE = 1.0
"""Seconds that the end of a job waits for a record that is being written."""
log = logging.getLogger(__name__)


@contextmanager
def recorded_progress(
    cache: Cache, writer: Lease, progress: Progress | None = None, *, phase: Phase = Phase.LISTING
) -> Iterator[Meter]:
    """Record the progress of a writer's job while the block lasts.

    The meter passes everything on to `progress`. A record that can't be written ends no job.
    """
    meter = Meter(progress, phase)

    def record() -> None:
        try:
            write_progress(cache.layout, writer.id, meter.snapshot())
        except OSError as error:
            log.info("The progress of the job on %s is not recorded: %s", writer.dataset, error)
            raise  # it is not tried again

    # In a thread of its own: those of the transfer must not wait for the volume.
    try:
        with repeating(record, INTERVAL, grace=GRACE):
            yield meter
    finally:
        with suppress(OSError):  # without its lease, which ends next, it counts no more
            remove_progress(cache.layout, writer.id)
