"""The objects of one source that wait to be read, and how many may be read at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from prefect_stagegate.sources.base import Source
from prefect_stagegate.transfer.job import Job
from prefect_stagegate.transfer.limits import Limits
from prefect_stagegate.transfer.retry import Retrier
from prefect_stagegate.transfer.workers import WorkerPool

TINY = 64 << 10
"""Largest object, in bytes, that blocking workers take in batches: handing it over costs more than reading it."""
BATCH = 32
"""Tiny objects that a worker takes at once."""


class SourceQueue:
    """The waiting objects of one source.

    Args:
        source: The objects' source.
        retrier: Its retries and throttle.
        limits: The transfer's.
        failed: Called with an exception of a blocking read that is no error of the source.
    """

    def __init__(
        self, source: Source, retrier: Retrier, limits: Limits, failed: Callable[[BaseException], object]
    ) -> None:
        self.source, self.retrier = source, retrier
        self.jobs: deque[Job] = deque()
        self.reads: set[Any] = set()
        """Reads over HTTP that hold a claim or a buffer, those that wait for a retry included."""
        self._in_flight = limits.in_flight
        bounds = filter(None, (source.readers, limits.in_flight, limits.connections))
        self.readers = WorkerPool("read", min(bounds), failed)
        """For a source that isn't read over HTTP."""
        self.away = WorkerPool("recall", limits.in_flight, failed)
        """For objects that their file system has to recall first, which takes long."""
        self.blocks = False
        """Whether the last object was read by a call that blocks."""

    def may_read(self) -> bool:
        """Whether another read may begin now. Reads that wait for a retry count as under way."""
        return len(self.reads) < self._in_flight and not self.retrier.quiet_seconds()

    def is_ready(self) -> bool:
        """Whether an object waits and may be started now."""
        if not self.jobs or not self.may_read():
            return False
        return not self.blocks or self.readers.busy < 2 * self.readers.size

    def take_batch(self, first: Job) -> list[Job]:
        """A worker's batch: `first`, and further tiny objects, few when few wait, so that all workers have some."""
        batch = [first]
        room = min(BATCH, len(self.jobs) // self.readers.size)
        while len(batch) < room and self.jobs and is_tiny(self.jobs[0]) and is_tiny(first):
            batch.append(self.jobs.popleft())
        return batch


def is_tiny(job: Job) -> bool:
    """Whether the object is listed and at most `TINY` bytes."""
    return job.listed is not None and job.listed.size <= TINY and not job.listed.away
