"""Small objects: one read, hashed and written as it comes."""

from __future__ import annotations

import os
import time

from prefect_stagegate.cache.ingest import Claim
from prefect_stagegate.cache.space import room
from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.transfer.buffers import write_all
from prefect_stagegate.transfer.checks import Hasher
from prefect_stagegate.transfer.intake import Done, Intake, writing
from prefect_stagegate.transfer.job import Job
from prefect_stagegate.transfer.progress import Laps


def fetch_whole(intake: Intake, job: Job, claim: Claim) -> Done:
    """Bring one small object in.

    Raises:
        SourceError: What the source said, after the retries.
        CacheError: The cache can't be written.
    """
    assert job.listed is not None  # noqa: S101 - looked up
    size = job.listed.size
    intake.space.take(room(size))
    started = time.time()
    hasher, laps = intake.retrier(job).run(lambda: _read(intake, job, claim, size), again=(SourceUnavailable,))
    return intake.finish(job, claim, hasher, laps, fetched=size, started=started, sync=False)


def _read(intake: Intake, job: Job, claim: Claim, size: int) -> tuple[Hasher, Laps]:
    """Read the object from its beginning into the claimed file; returns the digests of what was written."""
    assert job.listed is not None  # noqa: S101
    hasher, position = Hasher(job.listed.checksums), 0
    laps = Laps()
    for chunk in intake.read(job, 0, size):
        laps.lap("network")
        hasher.update(chunk)
        laps.lap("hashing")
        with writing(claim.path):
            write_all(claim.file, chunk, position)
        position += len(chunk)
        laps.lap("disk")
    if claim.size > size:
        with writing(claim.path):
            os.ftruncate(claim.file, size)
    return hasher, laps
