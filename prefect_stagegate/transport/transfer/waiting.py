"""Waiting for another stager that fetches the same object.

A claim only saves a second fetch. Its holder may be stopped or stalled. When nothing was written to the claim's file
for the idle time, the waiting stager takes a further claim, of the next number, and fetches the object itself; others
then wait for that claim. A stalled stager may continue at any time: it writes to its own file, and finds the blob that
is there.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from prefect_stagegate.cache.blobs import Blobs
from prefect_stagegate.cache.leases import Holder
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.transport.transfer.job import ClaimWait, FetchJob
from prefect_stagegate.transport.transfer.progress import Progress

REPORT_SECONDS = 1.0
"""Between two reports of a wait to progress; a fourth of the idle time where that is less."""
LOG_SECONDS = 5.0
"""A wait is logged after so many seconds without a byte; after half of the idle time where that is less."""

log = logging.getLogger(__name__)


class Waits:
    """The waits of one transfer for other stagers.

    A wait ends after `idle` seconds without a change of the claim's file.
    """

    def __init__(self, blobs: Blobs, idle: float, progress: Progress) -> None:
        self._blobs, self._idle, self._progress = blobs, idle, progress
        self._reported_at = 0.0
        self._first: dict[int, tuple[str, FetchJob]] = {}
        """By the holder's pid: since when this transfer waits for it, and the first object that it waited for."""
        self._logged: set[int] = set()

    def after_refusal(self, job: FetchJob) -> FetchJob:
        """The job to try next for an object that another stager has claimed: the same, or one that bypasses the claim.

        Raises:
            CacheError: The claim can't be read.
        """
        state, moment = self._blobs.claim_state(*job.claim_words()), time.monotonic()
        wait = job.wait
        if wait is None or wait.state != state:
            # The idle time begins at the first look, and anew whenever the holder has written.
            wait = ClaimWait(wait.since if wait else stamp(now())[:19] + "Z", state, moment)
        elif moment - wait.changed >= self._idle:
            holder = self._blobs.claim_holder(*job.claim_words())
            message = "%s has written nothing of %s for %.3g seconds: this stager fetches it itself"
            log.warning(message, holder or "another process", job.planned.path, moment - wait.changed)
            return replace(job, deferred=True, wait=None, beside=job.beside + 1)
        job = replace(job, deferred=True, wait=wait)
        if moment - self._reported_at >= min(REPORT_SECONDS, self._idle / 4):
            self._reported_at = moment
            self._report(job, wait, moment)
        return job

    def _report(self, job: FetchJob, wait: ClaimWait, moment: float) -> None:
        holder = self._blobs.claim_holder(*job.claim_words()) or Holder(0, "")
        since, first = self._first.setdefault(holder.pid, (wait.since, job))
        message = f"waiting since {since} for {holder} to fetch {first.planned.path}"
        self._progress.waiting(message)
        if holder.pid not in self._logged and moment - wait.changed >= min(LOG_SECONDS, self._idle / 2):
            self._logged.add(holder.pid)
            log.warning("%s; after %g seconds without a byte this stager fetches it itself", message, self._idle)
