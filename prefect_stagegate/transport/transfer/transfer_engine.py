"""A running transfer: starts reads, handles failures, and finds out when all objects are done.

    plan thread ──→ a queue a source ─┬→ HTTP loop: many requests under way ─→ small objects: hash, write, commit here
                                      │                                     └→ parts: writers write and hash in order
                                      └→ workers: sources whose calls block, from the claim to the commit

Code here runs in the loop's thread unless it says otherwise: it needs no locks, and must not wait. What may wait
(blocking calls, opening large objects, explaining failures) runs in workers, which `call` back into the loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

from prefect_stagegate.cache.ingest import Claim
from prefect_stagegate.errors import (
    CacheError,
    Cancelled,
    ChecksumMismatch,
    CredentialsExpired,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    StagegateError,
)
from prefect_stagegate.model import Action, PlannedObject, Receipt, SourceObject
from prefect_stagegate.sources.adapter import Source
from prefect_stagegate.transport.event_loop import EventLoop
from prefect_stagegate.transport.transfer.context import Done, TransferContext
from prefect_stagegate.transport.transfer.job import FetchJob, SourceGroup, replicas_of
from prefect_stagegate.transport.transfer.multipart import MultipartDownload, Part
from prefect_stagegate.transport.transfer.read_queues import Read, ReadQueues, SourceQueue
from prefect_stagegate.transport.transfer.waiting import Waits
from prefect_stagegate.transport.transfer.whole import WholeDownload
from prefect_stagegate.transport.transfer.workers import Results, WorkerPool

if TYPE_CHECKING:
    from prefect_stagegate.transport.http import Exchange, Loop, Request, Response
    from prefect_stagegate.transport.transfer.processes import Processes

MAX_PROCESSES = 16
"""Processes of one transfer, at most."""
WRITERS = 2
"""Threads that write and hash the parts of large objects."""
HELPERS = 4
"""Threads that open large objects, look objects up, and explain failures."""
SHARED_OBJECTS = 2000
"""Waiting objects from which worker processes take a part."""
SHARED_BYTES = 1 << 30
"""Planned bytes from which they do."""
CLAIM_POLL_SECONDS = 0.1
"""Seconds between two tries of an object that another stager has claimed."""
PROGRESS_SECONDS = 0.05
"""Seconds between two reports of progress."""
GRACE = 1.5
"""Seconds that a stopped transfer waits for its threads. A thread whose server is silent is left behind."""
_TICK = 0.05

log = logging.getLogger(__name__)


class TransferEngine:
    """The running parts of one transfer.

    A thread of its own reads the plan, some objects ahead. After `max_failed` failures no further object is
    started.
    """

    def __init__(
        self,
        context: TransferContext,
        plan: Iterable[PlannedObject],
        groups: Sequence[SourceGroup],
        max_failed: int,
        processes: Callable[[], int] = lambda: 1,
    ) -> None:
        self._context, self._plan, self._max_failed = context, plan, max_failed
        self._groups = groups
        self._loop = _loop_class(groups)(
            "transfer",
            room=context.limits.in_flight,
            supply=self._supply,
            turned=self._after_turn,
            ended=self._give_up_all,
        )
        self._writers = WorkerPool("write", WRITERS, self.fail)
        self._helpers = WorkerPool("helper", HELPERS, self.fail)
        self._queues = ReadQueues(context, groups, self._poll, self.fail)
        self._count_processes = processes
        self._processes: Processes | None = None
        self._planned_bytes = 0
        self._downloads: set[MultipartDownload] = set()
        """Large objects that hold a claim; abandoned when the loop has ended."""
        self._loop_ended = False
        self._planned = self._finished = 0
        """Numbers of objects that were put into a queue, and that are done or failed."""
        self._plan_ended = False
        self._too_many_failed = False
        """Whether too many objects failed; set under the lock."""
        self._lock = threading.Lock()
        self._reported_bytes, self._reported_at = 0, 0.0
        self.results = Results(context.stop, self.finish)
        self.ended = False
        self.fatal: BaseException | None = None
        """What ended the whole transfer: an error of the cache, of the plan, or a defect."""
        # In the caller's context, which loggers and progress need.
        run = partial(copy_context().run, self._read_plan)
        self._planning = threading.Thread(target=run, name="stagegate-plan", daemon=True)

    @cached_property
    def _waits(self) -> Waits:
        return Waits(self._context.store.blobs, self._context.limits.idle, self._context.progress)

    # ---------------------------------------------------------------- the caller's thread

    def start(self) -> None:
        """Start the threads."""
        self._loop.start()
        self._planning.start()

    def stop(self) -> None:
        """Stop the threads, wait for them at most `GRACE` seconds, and give up the claims of unfinished objects."""
        self._context.stop.end()
        until = time.monotonic() + GRACE
        if self._processes:
            self._processes.stop()
        self._loop.stop()
        self._loop.thread.join(GRACE)  # first: until it has ended it submits to the pools
        pools = [self._writers, self._helpers, *self._queues.pools()]
        for pool in pools:
            pool.stop()
        for pool in pools:
            pool.join(until)
        if self._processes:
            self._processes.join(until)
        self._planning.join(max(0.0, until - time.monotonic()))  # last: its listing may wait for a silent server

    def end(self, *, is_synced: bool) -> None:
        """End worker processes, after the last result was taken. `is_synced`: all results are durable."""
        if self._processes:
            self._processes.end(is_synced=is_synced)

    def wait(self, seconds: float) -> bool:
        """Wait until many results are there, at most `seconds`.

        Returns:
            Whether all objects are done, or something ends the transfer.
        """
        if not self.results.is_full:
            self._loop.feed()
        self.results.wait(seconds)
        # A defect in the loop's thread ends the transfer: nobody would wake this thread any more.
        if self._loop.failure:
            self.fail(self._loop.failure)
        if self._processes:
            self._processes.look()
        return self.ended

    # ---------------------------------------------------------------- the plan's thread

    def _read_plan(self) -> None:
        try:
            for planned in self._plan:
                group = self._groups[planned.source]
                job = FetchJob(planned, group.members(), listed=planned.object)
                if planned.action is Action.REUSE and self._reuse(job):
                    continue
                if group.replicas and planned.digest:
                    job = job.asking(group.asked(planned.digest))
                # Before it can be finished, else the transfer could look complete in between.
                self._planned += 1
                self._queues.put(job)
                self._loop.feed()
                if not self._processes:
                    self._start_processes(planned.object.size)
                while self._queues.are_full() and not self._is_over():
                    self._queues.wait_for_room(_TICK)
                if self._is_over():
                    break
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            self.fail(error)
        finally:
            self._loop.call(self._end_plan)

    def _start_processes(self, size: int) -> None:
        """Start worker processes once there is much to read, with another object of `size` bytes."""
        self._planned_bytes += size
        # Those that wait are counted last, for few stagings have so many.
        are_many = self._planned >= SHARED_OBJECTS and self._queues.waiting >= SHARED_OBJECTS
        if not are_many and self._planned_bytes < SHARED_BYTES:
            return
        # Of large objects, one process keeps two cores busy: its loop, and the threads that write and hash.
        count = self._most_processes if are_many else self._most_processes // 2
        if count < 2:  # noqa: PLR2004 - this one
            return
        from prefect_stagegate.transport.transfer.processes import Processes

        self.share(count)
        self._processes = Processes(self, self._context, self._groups, count)
        self._processes.start()

    @cached_property
    def _most_processes(self) -> int:
        """The most that may read, this one included. One alone keeps the limits of a server."""
        can_be_read = any(group.opening and group.opening.is_enough for group in self._groups)
        is_alone = self._context.limits.is_throttled or not can_be_read
        return 1 if is_alone else min(self._count_processes(), MAX_PROCESSES)

    def hand_to(self, give: Callable[[list[FetchJob]], None], *share: Any) -> None:
        """Have `give` called with objects for another process; `share` is as for `give_away`. From any thread."""
        self._loop.call(lambda: give(self._queues.give_away(*share)))

    def take_back(self, jobs: deque[FetchJob]) -> None:
        """Read what another process did not, with what `hand_to` gives it before this is done. From any thread."""
        self._loop.call(partial(self._requeue_all, jobs))

    def share(self, count: int) -> None:
        """Read as one of `count` processes from now on, which together use what one may use. From any thread."""
        self._loop.call(partial(self._queues.share, count))

    def _end_plan(self) -> None:
        self._plan_ended = True
        if self._too_many_failed:
            self._drop_waiting()  # the plan's thread may have added some since
        self._check_ended()

    def _reuse(self, job: FetchJob) -> bool:
        """Add the result of an object whose planned digest the cache holds; False where it doesn't any more."""
        planned = job.planned
        if not self._context.store.blobs.holds(planned.digest, planned.object.size):
            return False
        receipt = Receipt(planned.path, planned.object, planned.source, planned.digest, "manifest", 0)
        self.results.add_reused(Done(receipt))
        return True

    # ---------------------------------------------------------------- the loop's thread: starting reads

    def _supply(self, room: int) -> list[Exchange]:
        """The next requests, at most `room`. Also hands objects of blocking sources to workers."""
        exchanges: list[Exchange] = []
        if self._context.stop or self.results.is_full:
            return exchanges
        # Parts first: an open object holds a file and a claim until its last part came.
        while len(exchanges) < room and (part := self._queues.next_part()):
            if exchange := self._begin_part(self._queues.of(part.download.job), part):
                exchanges.append(exchange)
        startable = self._queues.startable()
        while len(exchanges) < room and not self._too_many_failed and (started := next(startable, None)):
            if exchange := self._begin(*started):
                exchanges.append(exchange)
        return exchanges

    def _begin(self, queue: SourceQueue, job: FetchJob) -> Exchange | None:
        """Start an object: the exchange of its request, or None where a worker or another stager has it."""
        self._context.progress.started(job.planned.path)
        exchange = None
        try:
            if job.listed is None:
                self._helpers.submit(partial(self._look_up, queue, job))
            elif job.replicas and job.replicas[0].is_dropped:
                self._requeue(job.asking(job.replicas))
            elif self._queues.is_large(job):
                exchange = self._begin_large(queue, job)
            else:
                exchange = self._begin_whole(queue, job, job.listed)
        except SourceError as error:
            self.handle_failure(job, error)
        finally:
            if exchange is None:
                queue.release()
        return exchange

    def _begin_whole(self, queue: SourceQueue, job: FetchJob, listed: SourceObject) -> Exchange | None:
        # Before the claim: an object that can't be requested leaves no claim behind.
        request = queue.source.request(listed, 0, listed.size)
        queue.blocks = request is None
        if request is None:
            self._read_blocking(queue, job)
            return None
        whole = self._claimed_whole(job)
        return self._exchange(Read(queue, job, whole), request) if whole else None

    def _begin_large(self, queue: SourceQueue, job: FetchJob) -> Exchange | None:
        """Have a helper open a large object. First ask a replica for it: a wait must not take an open place."""
        if job.replicas and not job.found and job.listed:
            return self._exchange(Read(queue, job, is_probe=True), job.replicas[0].probe(job.listed))
        # Counted now, so that no more than `OPEN` objects are open when the helper gets to it.
        self._queues.opening(job)
        self._helpers.submit(partial(self._open_large, job))
        return None

    def _begin_part(self, queue: SourceQueue, part: Part) -> Exchange | None:
        read, exchange = Read(queue, part.download.job, part=part), None
        try:
            if request := read.request():
                exchange = self._exchange(read, request)
            else:
                queue.readers.submit(partial(self._read_part, part))
        except SourceError as error:
            part.download.give_up(part)
            self._fail_part_of(part.download, error)
        finally:
            if exchange is None:
                queue.release()
        return exchange

    def _exchange(self, read: Read, request: Request) -> Exchange:
        read.attempt, read.started, read.connected = read.attempt + 1, time.monotonic(), True
        read.queue.reads.add(read)
        buffer, sink, whole = None, None, read.whole
        if whole:
            # A repeated request begins with the first byte again.
            whole.restart()
            if whole.size > self._queues.small:
                sink = whole.take
        elif read.part:
            start, end = read.bounds
            buffer = memoryview(read.part.buffer)[: end - start]
        make, throttle = cast("Loop", self._loop).exchange, read.queue.retrier.throttle
        return make(request, self._read_ended, buffer=buffer, sink=sink, meter=throttle, owner=read)

    # ---------------------------------------------------------------- the loop's thread: reads that have ended

    def _read_ended(self, exchange: Exchange) -> None:
        read: Read = exchange.owner
        queue, response = read.queue, exchange.response
        read.connected = False
        queue.release()
        self._loop.feed()  # another read may use the connection
        if exchange.error or response is None or not response.is_success:
            # In a helper: the source may ask the server a further question, or for fresh credentials.
            self._helpers.submit(partial(self._explain, read, exchange.error or cast("Response", response)))
            return
        queue.reads.discard(read)
        queue.retrier.succeeded()
        if read.whole:
            self._end_whole(read.whole, response)
        elif read.part:
            self._writers.submit(partial(self._store, read.part))
        else:
            self._requeue(replace(read.job, found=True))

    def _end_whole(self, whole: WholeDownload, response: Response) -> None:
        """Hash, write and commit a small object; or commit a larger one, whose bytes `_exchange` had written."""
        if whole.size <= self._queues.small:
            offers = whole.job.source.response_checksums(response.headers) if _needs_checksums(whole.job) else ()
            if self._work_on(whole, whole.store, response.body, offers):
                return
        # In a worker: the source may be asked about the checksum, which may take a while.
        self._helpers.submit(partial(self._work_on, whole, whole.finish))

    def _retry(self, read: Read, error: StagegateError, *, renewed: bool) -> None:
        """Retry a failed read; where it may not be, read the object whole or go on with the job's next step."""
        # `explain` has noticed that the server ignores ranges: each part would be the whole object.
        if read.part and not read.job.source.ranges:
            self._give_up(read)
            self._restart_whole(read.part)
            return
        # Fresh credentials are tried at once, and cost nothing of the budget of retries.
        delay: float | None = 0.0 if renewed else None
        if isinstance(error, SourceError) and error.ask_again:
            delay = error.ask_again
        elif isinstance(error, SourceUnavailable):
            delay = read.queue.retrier.delay(read.attempt, error)
        if delay is None or self._too_many_failed:
            self._give_up(read)
            if read.part:
                self._fail_part_of(read.part.download, error)
            else:
                self.handle_failure(read.job, error)
            return
        self._context.stats.add_seconds("waiting", delay)
        self._loop.call_later(delay, partial(self._repeat, read))
        # Nothing else wakes a source's queue when its server's Retry-After is over.
        self._loop.call_later(read.queue.retrier.quiet_seconds(), self._loop.feed)

    def _repeat(self, read: Read) -> None:
        """Send a read's request again, as soon as there is a connection."""
        if not read.queue.take_connection():
            self._loop.call_later(_TICK, partial(self._repeat, read))
            return
        try:
            request = read.request()
        except SourceError as error:
            read.queue.release()
            self._retry(read, error, renewed=False)
            return
        if request:
            cast("Loop", self._loop).submit(self._exchange(read, request))
        else:  # renewed credentials are of a kind that only blocking calls can use
            read.queue.release()
            self._give_up(read)
            self._requeue(read.job)

    def _give_up(self, read: Read) -> None:
        """Release the claim or buffer of a read, unless the end of the loop has."""
        try:
            # Atomic: `_explain` in a worker may come back while the loop's thread gives up all reads.
            read.queue.reads.remove(read)
        except KeyError:
            return
        self._loop.feed()
        if read.whole:
            read.whole.claim.keep()
        elif read.part:
            read.part.download.give_up(read.part)

    def _restart_whole(self, part: Part) -> None:
        """Read an object whole, because its server ignores ranges."""
        self._close_download(part.download)
        self._downloads.discard(part.download)
        if part.download.abandon(discard=True):
            self._requeue(part.download.job)

    def _fail_part_of(self, download: MultipartDownload, error: StagegateError) -> None:
        """Abandon a large object. Only the first failure of a part is handled."""
        self._close_download(download)
        self._downloads.discard(download)
        # After a failed write or sync, bytes may look written that are not. What a replica sent is not proved yet.
        wrong = isinstance(error, ChecksumMismatch | ObjectChanged | CacheError) or bool(download.job.replicas)
        if download.abandon(discard=wrong):
            self.handle_failure(download.job, error)

    def _close_download(self, download: MultipartDownload) -> None:
        self._queues.closed(download)
        self._loop.feed()

    def handle_failure(self, job: FetchJob, error: StagegateError) -> None:
        """Handle a read that failed for good. From any thread."""
        # The stop ended this read: the object itself has not failed.
        if isinstance(error, Cancelled) and self._context.stop:
            return
        if not isinstance(error, SourceError):
            self.fail(error)
            return
        self._try_next(job, error)

    def _try_next(self, job: FetchJob, error: SourceError) -> None:
        """Requeue the job's next step, or record that its object failed."""
        if job.replicas and not isinstance(error, ObjectVanished):
            job.replicas[0].drop(error)
            self._context.stats.dropped_replicas[job.replicas[0].name] = job.replicas[0].problem
        next_job = job.after(error)
        if next_job is not None:
            self._loop.call(partial(self._requeue, next_job))
            return
        error.object = job.planned.path
        with self._lock:
            self._context.stats.failures.append(error)
            self._too_many_failed = self._too_many_failed or len(self._context.stats.failures) > self._max_failed
        if self._too_many_failed and self._processes:
            self._processes.stop()
        self._loop.call(self._count_finished)

    def _poll(self) -> None:
        self._loop.call_later(_TICK, self._loop.feed)

    def _requeue(self, job: FetchJob) -> None:
        """Put a job back at the front of its source's queue."""
        self._queues.put_back(job)
        self._loop.feed()

    def _requeue_all(self, jobs: deque[FetchJob]) -> None:
        while jobs:
            self._requeue(jobs.pop())

    def _drop_waiting(self) -> None:
        """Drop the objects that wait, since too many failed. Reads under way continue."""
        self._finished += self._queues.drop_waiting()

    def finish(self, objects: int) -> None:
        """Count objects as finished. From any thread."""
        if self._loop.is_here():
            self._finished += objects
        else:
            self._loop.call(partial(self._count_finished, objects))

    def _count_finished(self, objects: int = 1) -> None:
        self._finished += objects

    def _after_turn(self) -> None:
        """Called by the loop after each turn."""
        if self._too_many_failed:
            self._drop_waiting()
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS:
            self._report_progress()
        self._check_ended()

    def _report_progress(self) -> None:
        received = max(self._loop.received_so_far(), self._reported_bytes)
        if received > self._reported_bytes:
            self._context.report_received(received - self._reported_bytes)
        self._reported_bytes, self._reported_at = received, time.monotonic()

    def _check_ended(self) -> None:
        if self._plan_ended and self._finished >= self._planned and not self.ended:
            self._report_progress()
            self.ended = True
            self.results.wake()

    def _is_over(self) -> bool:
        return self._too_many_failed or bool(self._context.stop)

    def fail(self, error: BaseException) -> None:
        """End the whole transfer with an error. From any thread."""
        # The first cause counts: what follows from the stop says less.
        self.fatal = self.fatal or error
        self._context.stop.end()
        self.ended = True
        self.results.wake()

    # ---------------------------------------------------------------- claims

    def _give_up_all(self) -> None:
        """Give up all reads and downloads when the loop has ended. In its thread, which alone may change the reads."""
        for read in self._queues.reads():
            if read.connected:
                read.queue.release()
            self._give_up(read)
        self._loop_ended = True
        for download in list(self._downloads):
            download.abandon(discard=False)

    def _claimed_whole(self, job: FetchJob) -> WholeDownload | None:
        """Claim an object that is read whole; None where another stager has it, or the cache has it by now."""
        claim = self._claim(job)
        if claim is None:
            return None
        try:
            return WholeDownload(self._context, job, claim)
        except BaseException:
            claim.keep()
            raise

    def _claim(self, job: FetchJob) -> Claim | None:
        """Claim an object; None where another stager has it, or the cache has it by now. From any thread."""
        claim = self._context.store.blobs.claim(*job.claim_words())
        if claim is None:
            later = self._waits.after_refusal(job)
            self._loop.call(lambda: self._loop.call_later(CLAIM_POLL_SECONDS, partial(self._requeue, later)))
            return None
        # Look only after the claim is taken: another stager may have committed the object just before.
        try:
            cached = self._context.cached(job)
        except BaseException:
            claim.keep()
            raise
        if cached is None:
            return claim
        claim.drop()
        self.results.add(cached)
        return None

    # ---------------------------------------------------------------- workers, which may wait

    def _explain(self, read: Read, outcome: Response | Exception) -> None:
        """Have the source explain a failure, and renew its credentials where they expired."""
        assert read.job.listed is not None  # noqa: S101
        source = read.job.source
        error = source.explain(read.job.listed, outcome)
        renewed = False
        try:
            renewed = isinstance(error, CredentialsExpired) and source.renew(read.started)
        except StagegateError as refused:
            error = refused
        self._loop.call(partial(self._retry, read, error, renewed=renewed))

    def _work_on(self, whole: WholeDownload, step: Callable[..., Done | None], *values: Any) -> bool:
        """Take a step of a claimed object; in the loop's thread only one that doesn't wait. Whether it was the last."""
        try:
            done = step(*values)
        except (SourceError, Cancelled) as error:
            whole.claim.keep()
            self.handle_failure(whole.job, error)
            return True
        except BaseException:
            whole.claim.keep()
            raise
        if done:
            self.results.add(done)
        return done is not None

    def _look_up(self, queue: SourceQueue, job: FetchJob) -> None:
        """Look the object up at a mirror, or again at its source."""
        try:
            located = queue.retrier.run(job.looked_up)
        except (SourceError, Cancelled) as error:
            self.handle_failure(job, error)
        else:
            self._loop.call(partial(self._requeue, located))

    def _read_blocking(self, queue: SourceQueue, job: FetchJob) -> None:
        """Have a worker read the object, and further tiny ones, by blocking calls."""
        assert job.listed is not None  # noqa: S101
        if job.listed.away:
            queue.away.submit(partial(self._read_each, [job]))
            return
        queue.readers.submit(partial(self._read_each, queue.take_batch(job)))

    def _read_each(self, jobs: Sequence[FetchJob]) -> None:
        for job in jobs:
            if self._is_over():
                # Put back, so that it is counted when the waiting objects are dropped.
                self._loop.call(partial(self._requeue, job))
                continue
            self.results.wait_for_room()
            try:
                whole = self._claimed_whole(job)
            except SourceError as error:
                self.handle_failure(job, error)
                continue
            if whole:
                self._work_on(whole, whole.read_blocking)
        self._loop.feed()

    def _read_part(self, part: Part) -> None:
        """Read a part by a blocking call, and store it."""
        download, job = part.download, part.download.job
        start, end = download.bounds(part)

        def read() -> None:
            self._context.stop.check()
            assert job.listed is not None  # noqa: S101
            with memoryview(part.buffer)[: end - start] as view:
                job.source.read_into(job.listed, start, view)

        try:
            self._context.retrier_of(job.source).run(read)
            self._context.count_received(job, end - start)
        except (SourceError, Cancelled) as error:
            download.give_up(part)  # not by the loop, which may have ended
            self._loop.call(partial(self._fail_part_of, download, error))
        except BaseException:
            download.give_up(part)
            raise
        else:
            self._store(part)

    def _store(self, part: Part) -> None:
        """Write a part, and hash the parts whose turn it is."""
        self._advance(part.download, partial(part.download.store, part))

    def _open_large(self, job: FetchJob) -> None:
        """Claim and open a large object, and hash what an interrupted run left of it."""
        download = None
        try:
            claim = self._claim(job)
            if claim:
                try:
                    offers = job.source.closer_checksums(job.listed) if job.listed and _needs_checksums(job) else ()
                    download = MultipartDownload(self._context, job, claim, offers)
                    self._downloads.add(download)
                    # `_give_up_all` may have run before the download was added.
                    if self._loop_ended:
                        download.abandon(discard=False)
                except BaseException:
                    claim.keep()
                    raise
        except SourceError as error:
            self.handle_failure(job, error)
        finally:
            # Also without a download: the object counts as being opened until then.
            self._loop.call(partial(self._opened, job, download))
        if download:
            self._advance(download, download.begin)

    def _opened(self, job: FetchJob, download: MultipartDownload | None) -> None:
        self._queues.opened(job, download)
        self._loop.feed()

    def _advance(self, download: MultipartDownload, step: Callable[[], Done | None]) -> None:
        """Take a step of a large object, and hand it over when that was the last."""
        try:
            done = step()
        except (SourceError, Cancelled, CacheError) as error:
            self._loop.call(partial(self._fail_part_of, download, error))
        else:
            if done:
                # Before the result is handed over: its claim is the consumer's from then on.
                self._downloads.discard(download)
                self.results.add(done)
                self._loop.call(partial(self._close_download, download))
            self._loop.feed()


def _loop_class(groups: Sequence[SourceGroup]) -> type[EventLoop]:
    """The HTTP loop, unless all calls of all sources block: a staging of local files imports no HTTP client."""
    members = [source for group in groups for source in group.members()]
    if not replicas_of(groups) and all(type(source).request is Source.request for source in members):
        return EventLoop
    from prefect_stagegate.transport.http import Loop

    return Loop


def _needs_checksums(job: FetchJob) -> bool:
    """Whether there is neither a digest nor a checksum yet to check the object's bytes by."""
    return job.listed is not None and not job.planned.digest and not job.listed.checksums
