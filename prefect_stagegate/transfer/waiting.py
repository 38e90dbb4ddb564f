"""Waiting for another stager that brings the same object in: for whom, since when, and for how long.

A claim spares a second fetch, and that is all it is for. Who holds one may be stopped, or stand still for another
reason. So when nothing was written to its file for the idle time, whoever waits fetches the object beside it, by a
claim of the next number; others wait for that one in turn. The stopped one may go on at any time: it writes to its own
file, and finds the blob that is there.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from prefect_stagegate.cache.blobs import Blobs
from prefect_stagegate.cache.holders import Holder
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.transfer.job import ClaimWait, Job
from prefect_stagegate.transfer.progress import Progress

TELL_SECONDS = 1.0
"""Between two looks at who is waited for; a fourth of the idle time where that is less."""
LOG_SECONDS = 5.0
"""After which waiting is worth a line in the log; half of the idle time where that is less."""

log = logging.getLogger(__name__)


class Waits:
    """What one transfer waits for.

    Args:
        blobs: Where the claims are.
        idle: Seconds without a change of a claim's file after which it is waited for no longer.
        progress: Told for whom, about once a second.
    """

    def __init__(self, blobs: Blobs, idle: float, progress: Progress) -> None:
        self._blobs, self._idle, self._progress = blobs, idle, progress
        self._told_at = 0.0
        self._first: dict[int, tuple[str, Job]] = {}
        """By the holder's pid: since when it is waited for, and for which object first."""
        self._logged: set[int] = set()

    def after_refusal(self, job: Job) -> Job:
        """What to try next of an object that somebody else has claimed: the same again, or to fetch it beside that one.

        Raises:
            CacheError: The claim can't be looked at.
        """
        state, moment = self._blobs.claim_state(*job.claim_words()), time.monotonic()
        wait = job.wait
        if wait is None or wait.state != state:
            wait = ClaimWait(wait.since if wait else stamp(now())[:19] + "Z", state, moment)
        elif moment - wait.changed >= self._idle:
            holder = self._blobs.claim_holder(*job.claim_words())
            message = "%s wrote nothing of %s for %.3g seconds: this stager fetches it, too"
            log.warning(message, holder or "another process", job.planned.path, moment - wait.changed)
            return replace(job, deferred=True, wait=None, beside=job.beside + 1)
        job = replace(job, deferred=True, wait=wait)
        if moment - self._told_at >= min(TELL_SECONDS, self._idle / 4):
            self._told_at = moment
            self._tell(job, wait, moment)
        return job

    def _tell(self, job: Job, wait: ClaimWait, moment: float) -> None:
        holder = self._blobs.claim_holder(*job.claim_words()) or Holder(0, "")
        since, first = self._first.setdefault(holder.pid, (wait.since, job))
        message = f"waiting since {since} for {holder} to bring {first.planned.path} in"
        self._progress.waiting(message)
        if holder.pid not in self._logged and moment - wait.changed >= min(LOG_SECONDS, self._idle / 2):
            self._logged.add(holder.pid)
            log.warning("%s; after %g seconds without a byte this stager fetches it itself", message, self._idle)
