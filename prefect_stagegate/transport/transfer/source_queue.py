"""The objects of one source that wait to be read, and its reads under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from prefect_stagegate.sources.base import Source
from prefect_stagegate.transport.http import Request
from prefect_stagegate.transport.transfer.job import Job
from prefect_stagegate.transport.transfer.limits import Limits
from prefect_stagegate.transport.transfer.multipart import Part
from prefect_stagegate.transport.transfer.retry import Retrier
from prefect_stagegate.transport.transfer.whole import WholeDownload
from prefect_stagegate.transport.transfer.workers import WorkerPool

TINY = 64 << 10
"""Largest object, in bytes, that blocking workers take in batches: handing it over costs more than reading it."""
BATCH = 32
"""Tiny objects that a worker takes at once."""


class SourceQueue:
    """The waiting objects of one source.

    `failed` is called with an exception of a blocking read that is no error of the source.
    """

    def __init__(
        self, source: Source, retrier: Retrier, limits: Limits, failed: Callable[[BaseException], object]
    ) -> None:
        self.source, self.retrier = source, retrier
        self.jobs: deque[Job] = deque()
        self.reads: set[Read] = set()
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
        # Two for each worker keep all busy, and most of the plan stays where it can be dropped.
        return not self.blocks or self.readers.busy < 2 * self.readers.size

    def take_connection(self) -> bool:
        """Take a connection, where the server's are limited; `release` gives it back."""
        return self.retrier.throttle is None or self.retrier.throttle.try_acquire()

    def release(self) -> None:
        """Give a connection back."""
        if self.retrier.throttle:
            self.retrier.throttle.release()

    def take_batch(self, first: Job) -> list[Job]:
        """A worker's batch: `first`, and further tiny objects, few when few wait, so that all workers have some."""
        batch = [first]
        room = min(BATCH, len(self.jobs) // self.readers.size)
        while len(batch) < room and self.jobs and is_tiny(self.jobs[0]) and is_tiny(first):
            batch.append(self.jobs.popleft())
        return batch


@dataclass(slots=True, eq=False)
class Read:
    """One read over HTTP: of a whole object, or of a part of one; or a question to a node whether it has a blob."""

    queue: SourceQueue
    job: Job
    whole: WholeDownload | None = None
    part: Part | None = None
    is_probe: bool = False
    """Whether it only asks another node for a blob's presence."""
    attempt: int = 0
    started: float = 0.0
    """When the request was sent, by the monotonic clock."""
    connected: bool = False
    """Whether it holds one of the connections that its server's throttle grants."""

    @property
    def bounds(self) -> tuple[int, int]:
        """Its first byte in the object, and the byte after its last one."""
        assert self.job.listed is not None  # noqa: S101 - looked up
        return self.part.download.bounds(self.part) if self.part else (0, self.job.listed.size)

    def request(self) -> Request | None:
        """The request for its bytes; None where the source's calls block.

        Raises:
            SourceError: The bytes can't be requested.
        """
        assert self.job.listed is not None  # noqa: S101
        if self.is_probe:
            return self.job.peers[0].probe(self.job.listed)
        return self.job.source.request(self.job.listed, *self.bounds)


def is_tiny(job: Job) -> bool:
    """Whether the object is listed and at most `TINY` bytes."""
    return job.listed is not None and job.listed.size <= TINY and not job.listed.away
