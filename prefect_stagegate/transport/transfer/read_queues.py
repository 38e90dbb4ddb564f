"""What waits to be read in one transfer, and which of it is read next."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prefect_stagegate.sources.adapter import Source
from prefect_stagegate.transport.transfer.context import TransferContext
from prefect_stagegate.transport.transfer.job import FetchJob, SourceGroup, replicas_of
from prefect_stagegate.transport.transfer.multipart import MultipartDownload, Part
from prefect_stagegate.transport.transfer.retry import Retrier
from prefect_stagegate.transport.transfer.whole import WholeDownload
from prefect_stagegate.transport.transfer.workers import WorkerPool
from prefect_stagegate.transport.transfer_limits import Limits

if TYPE_CHECKING:
    from prefect_stagegate.transport.http import Request

TINY = 64 << 10
"""Largest object, in bytes, that blocking workers take in batches: handing it over costs more than reading it."""
BATCH = 32
"""Tiny objects that a worker takes at once."""
SMALL = 1 << 20
"""Largest object, in bytes, that one request reads into memory; larger ones are read in parts, each in a buffer."""
AHEAD = 2048
"""Planned objects that wait to be started, at most."""
AHEAD_AT_REPLICAS = 16 * AHEAD
"""Maximum planned objects queued for replicas. Larger than `AHEAD`, because a replica may not have the blob yet."""
OPEN = 8
"""Large objects that are open at the same time, at most."""
OPEN_SHARED = 2
"""The same where other processes read large objects, too."""
REPLICA_READS = 16
"""Maximum requests to one replica at a time."""


class SourceQueue:
    """The waiting objects of one source.

    `failed` is called with an exception of a blocking read that is no error of the source.
    """

    def __init__(
        self, source: Source, retrier: Retrier, limits: Limits, failed: Callable[[BaseException], object]
    ) -> None:
        self.source, self.retrier = source, retrier
        self.jobs: deque[FetchJob] = deque()
        self.reads: set[Read] = set()
        """Reads over HTTP that hold a claim or a buffer, those that wait for a retry included."""
        self.in_flight = limits.in_flight
        bounds = filter(None, (source.readers, limits.in_flight, limits.connections))
        self.readers = WorkerPool("read", min(bounds), failed)
        """For a source that isn't read over HTTP."""
        self.away = WorkerPool("recall", limits.in_flight, failed)
        """For objects that their file system has to recall first, which takes long."""
        self.blocks = False
        """Whether the last object was read by a call that blocks."""

    def may_read(self) -> bool:
        """Whether another read may begin now. Reads that wait for a retry count as under way."""
        return len(self.reads) < self.in_flight and not self.retrier.quiet_seconds()

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

    def take_batch(self, first: FetchJob) -> list[FetchJob]:
        """A worker's batch: `first`, and further tiny objects, few when few wait, so that all workers have some."""
        batch = [first]
        room = min(BATCH, len(self.jobs) // self.readers.size)
        while len(batch) < room and self.jobs and is_tiny(self.jobs[0]) and is_tiny(first):
            batch.append(self.jobs.popleft())
        return batch


@dataclass(slots=True, eq=False)
class Read:
    """One read over HTTP: of a whole object, or of a part of one; or a question to a replica whether it has a blob."""

    queue: SourceQueue
    job: FetchJob
    whole: WholeDownload | None = None
    part: Part | None = None
    is_probe: bool = False
    """Whether it only asks a replica for a blob's presence."""
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
            return self.job.replicas[0].probe(self.job.listed)
        return self.job.source.request(self.job.listed, *self.bounds)


def is_tiny(job: FetchJob) -> bool:
    """Whether the object is listed and at most `TINY` bytes."""
    return job.listed is not None and job.listed.size <= TINY and not job.listed.away


class ReadQueues:
    """A queue for each source and each replica, and the large objects that are open.

    The plan's thread puts jobs in; all else happens in the loop's thread.

    Args:
        context: Limits and retriers.
        groups: The sources, with their mirrors and the replicas that are asked first.
        poll: Called where a server takes no further connection now: soon afterwards, somebody asks again.
        failed: Called with an exception of a blocking read that is no error of the source.
    """

    def __init__(
        self,
        context: TransferContext,
        groups: Sequence[SourceGroup],
        poll: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        members = {id(source): source for group in groups for source in group.members()}
        replicas, limits = replicas_of(groups), context.limits
        # Half for each: requests that wait for replicas must not keep this one from reading its own share.
        shared = replace(limits, in_flight=max(1, limits.in_flight // 2)) if replicas else limits
        # Each has its own part: requests that wait for a late replica must not keep this one from asking the others.
        to_replicas = replace(shared, in_flight=max(1, min(REPLICA_READS, shared.in_flight // max(1, len(replicas)))))
        self._sources = [SourceQueue(source, context.retrier_of(source), shared, failed) for source in members.values()]
        self._replicas = [SourceQueue(each, context.retrier_of(each), to_replicas, failed) for each in replicas]
        self._by_source = {id(queue.source): queue for queue in self._all()}
        self._most_reads = shared.in_flight
        self._context, self._poll = context, poll
        # Not above a part: whatever is larger is read into buffers of that size.
        self.small = min(SMALL, limits.part)
        """Bytes of the largest object that one request reads into memory."""
        self._most_open = OPEN
        self._opening: list[FetchJob] = []
        self._open: list[MultipartDownload] = []
        self._has_room = threading.Event()

    def _all(self) -> Iterable[SourceQueue]:
        return (*self._sources, *self._replicas)

    # ---------------------------------------------------------------- what waits

    def put(self, job: FetchJob) -> None:
        """Add a job, which waits for its turn. In the plan's thread."""
        self.of(job).jobs.append(job)

    def are_full(self) -> bool:
        """Whether so many objects wait that the plan is read no further."""
        at_replicas = sum(len(queue.jobs) for queue in self._replicas)
        return sum(len(queue.jobs) for queue in self._sources) >= AHEAD or at_replicas >= AHEAD_AT_REPLICAS

    @property
    def waiting(self) -> int:
        """The objects that wait for sources."""
        return sum(len(queue.jobs) for queue in self._sources)

    def give_away(self, sources: Collection[int], most: int, size: int, parts: int) -> list[FetchJob]:
        """Take objects for another process, which opens these sources.

        They are one of `parts` parts of what waits, at most `most` objects, and end with the one that reaches `size`
        bytes.
        """
        given: list[FetchJob] = []
        for queue in self._sources:
            room = min(most - len(given), -(-len(queue.jobs) // parts))
            # From the end, where the objects are that were not tried yet.
            while room > 0 and size > 0 and queue.jobs:
                last = queue.jobs[-1]
                if not last.is_untried or last.planned.source not in sources:
                    break
                given.append(queue.jobs.pop())
                room, size = room - 1, size - given[-1].planned.object.size
        if given:
            self._has_room.set()
        return given

    def share(self, count: int) -> None:
        """Use a share of the limits from now on, as one of `count` processes."""
        limits = self._context.limits.share(count)
        for queue in self._sources:
            queue.in_flight = min(limits.in_flight, self._most_reads)
        self._context.buffers.resize(limits.buffers)
        self._most_open = OPEN_SHARED if count > 1 else OPEN

    def wait_for_room(self, seconds: float) -> None:
        """Wait until there may be room again, at most `seconds`. In the plan's thread."""
        self._has_room.wait(seconds)
        self._has_room.clear()

    def put_back(self, job: FetchJob) -> None:
        """Add a job that is the next of its source."""
        self.of(job).jobs.appendleft(job)

    def drop_waiting(self) -> int:
        """Drop the jobs that wait; reads under way continue. Returns how many were dropped."""
        dropped = 0
        for queue in self._all():
            while queue.jobs:  # one by one: the plan's thread may add another at this moment
                queue.jobs.popleft()
                dropped += 1
        self._has_room.set()
        return dropped

    def of(self, job: FetchJob) -> SourceQueue:
        """The queue of the source that a job tries now."""
        return self._by_source[id(job.source)]

    def reads(self) -> list[Read]:
        """All reads over HTTP."""
        return [read for queue in self._all() for read in queue.reads]

    def pools(self) -> list[WorkerPool]:
        """The workers of sources whose calls block."""
        return [pool for queue in self._all() for pool in (queue.readers, queue.away)]

    # ---------------------------------------------------------------- what is read next

    def startable(self) -> Iterator[tuple[SourceQueue, FetchJob]]:
        """Take the jobs that may be started now, one at each step, with the connection that it needs.

        The node's own share comes first whenever there is room.
        """
        for queue in self._sources:
            while self._may_start(queue):
                yield queue, self._take(queue)
        while replica_queue := self._next_replica():
            yield replica_queue, self._take(replica_queue)

    def _take(self, queue: SourceQueue) -> FetchJob:
        if len(queue.jobs) == AHEAD // 2:
            self._has_room.set()
        return queue.jobs.popleft()

    def _may_start(self, queue: SourceQueue) -> bool:
        """Whether the queue's next object may be started; takes the connection that it needs."""
        # The connection last, since it has to be used or given back.
        return queue.is_ready() and self._has_place(queue.jobs[0]) and self._has_connection(queue)

    def _next_replica(self) -> SourceQueue | None:
        """The replica whose next object is started now: of those where one may be, that with the fewest open.

        All nodes of a site name the others in one order. If it decided, all would read from the first of them, and the
        last would send nothing until the first is through: the last of five ended at 1.72 times a copy's time.
        """
        # All together take no more than their half.
        if sum(len(queue.reads) for queue in self._replicas) >= self._most_reads:
            return None
        opened = Counter(id(job.source) for job in self._open_jobs())
        waiting = (queue for queue in self._replicas if queue.jobs)
        in_turn = sorted(waiting, key=lambda queue: opened[id(queue.source)])
        return next((queue for queue in in_turn if self._may_start(queue)), None)

    def next_part(self) -> Part | None:
        """The next part, of the open object with the fewest parts under way; None without a buffer or connection."""
        # Evenly: an object that gets no part would hold its file and its claim for nothing.
        for download in sorted(self._open, key=lambda download: download.users):
            queue = self.of(download.job)
            if not queue.may_read() or not self._has_connection(queue):
                continue
            if part := download.next_part():
                return part
            queue.release()
        return None

    def _has_connection(self, queue: SourceQueue) -> bool:
        if queue.take_connection():
            return True
        self._poll()  # another transfer may release one
        return False

    # ---------------------------------------------------------------- large objects

    def is_large(self, job: FetchJob) -> bool:
        """Whether the object is read in parts. Not from a server that ignores ranges: each part would be the whole."""
        return (job.listed or job.planned.object).size > self.small and job.source.ranges

    def opening(self, job: FetchJob) -> None:
        """Count a large object as open before it is, so that never more than `OPEN` are."""
        self._opening.append(job)

    def opened(self, job: FetchJob, download: MultipartDownload | None) -> None:
        """Read the parts of a large object, or give its place back where it could not be opened."""
        self._opening.remove(job)
        if download:
            self._open.append(download)

    def closed(self, download: MultipartDownload) -> None:
        """Read no further part of a large object."""
        if download in self._open:
            self._open.remove(download)

    def _open_jobs(self) -> list[FetchJob]:
        return [*self._opening, *(download.job for download in self._open)]

    def _has_place(self, job: FetchJob) -> bool:
        """Whether there is a place for an object, if it is large and is not only asked for at a replica."""
        is_asked_for = bool(job.replicas) and not job.found
        return not self.is_large(job) or is_asked_for or self._may_open(at_replicas=bool(job.replicas))

    def _may_open(self, *, at_replicas: bool) -> bool:
        """Whether another large object may be opened.

        While objects of both kinds wait, replicas and sources have half of the places each. With all of them at the
        sources, a node would not fetch what the others have already: the last of five ended at 2.4 times a copy's time.
        """
        others = self._sources if at_replicas else self._replicas
        most = max(1, self._most_open // 2) if any(queue.jobs for queue in others) else self._most_open
        opened = self._open_jobs()
        has_place = len(opened) < self._most_open and sum(bool(job.replicas) is at_replicas for job in opened) < most
        return has_place and self._context.buffers.available > len(self._opening)
