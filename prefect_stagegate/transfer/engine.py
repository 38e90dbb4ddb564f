"""The threads of a transfer: one reads the plan, the others bring objects in and decide what a failure leads to."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from prefect_stagegate.cache.ingest import Claim
from prefect_stagegate.errors import CacheError, Cancelled, ChecksumMismatch, ObjectChanged, SourceError, StagegateError
from prefect_stagegate.model import Action, PlannedObject, Receipt
from prefect_stagegate.transfer.buffers import Buffers
from prefect_stagegate.transfer.crew import LOOK_SECONDS, Crew, thread
from prefect_stagegate.transfer.intake import Done, Intake
from prefect_stagegate.transfer.job import Job, SourceGroup
from prefect_stagegate.transfer.parts import Part, Parted
from prefect_stagegate.transfer.schedule import TURN, Schedule, Share, Work
from prefect_stagegate.transfer.waiting import Waits
from prefect_stagegate.transfer.whole import fetch_whole

T = TypeVar("T")

SMALL = 1 << 20
"""Objects of up to so many bytes are read at once; larger ones in parts, each in a buffer."""
TINY = 1 << 16
"""Objects of up to so many bytes cost the interpreter more than hashing and writing them costs."""
RUN = 8
"""Small objects that a thread takes at once where they can't be asked for ahead."""
BACKLOG = 256
"""Results that wait at most, each with an open file; a consumer that is slower than the transfer slows it down."""
MANY = 192
"""Results for which the consumer is woken."""
GRACE = 1.5
"""Seconds that a stopped transfer waits for its threads. One that a silent server holds is left behind."""


@dataclass(slots=True)
class Claimed:
    """An object that this transfer brings in, and nobody else."""

    job: Job
    claim: Claim
    asked: bool = False
    """Whether its source was asked for it ahead."""


class Engine:
    """The running threads of one transfer.

    Args:
        intake: The transfer's surroundings.
        plan: What is to be done; read by a thread of the engine's, as far ahead as is useful.
        groups: The sources, by their position in the spec.
        max_failed: Objects that may fail before no further ones are started.
    """

    def __init__(
        self, intake: Intake, plan: Iterable[PlannedObject], groups: Sequence[SourceGroup], max_failed: int
    ) -> None:
        self._intake, self._plan, self._max_failed = intake, plan, max_failed
        self._members = [group.members() for group in groups]
        limits = intake.limits
        self._buffers = Buffers(max(limits.memory // limits.part, 1), limits.part)
        self._schedule = Schedule(self._buffers, min(SMALL, limits.part), self._share, intake.stop)
        self._waits = Waits(intake.store.blobs, limits.idle, intake.progress)
        self._lock = threading.Lock()
        self.results: deque[Done] = deque()
        """What came in. It is looked at now and then: to wake a thread for each object would cost much."""
        self._news = threading.Event()
        self._ended = False
        self.fatal: BaseException | None = None
        """What ended the whole transfer: an error of the cache, of the plan, or a defect."""
        self._planning = thread(self._read_plan, "plan", copy_context())
        self._crew = Crew(self._work, limits.in_flight, self._tell_end)
        self._asks_ahead = False
        """Whether the last small objects were asked for ahead."""

    def start(self) -> None:
        """Start the threads."""
        self._crew.begin()
        self._planning.start()

    def stop(self) -> None:
        """Stop the threads and wait for them, though not for ever, and give up the claims on what is not at its end."""
        self._intake.stop.end()
        until = time.monotonic() + GRACE
        self._planning.join(GRACE)
        self._crew.join(until)
        for parted in self._schedule.left():
            parted.abandon(discard=False)

    def wait(self, seconds: float) -> bool:
        """Wait until many results are there, or for so long.

        Returns:
            Whether all threads have ended, or something ends the transfer.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._crew.look(needed=self._schedule.waiting, asks_ahead=self._asks_ahead)
            if self._news.wait(min(left, LOOK_SECONDS)):
                break
        self._news.clear()
        return self._ended

    def _read_plan(self) -> None:
        try:
            for planned in self._plan:
                if self._intake.stop:
                    return
                job = Job(planned, self._members[planned.source], listed=planned.object)
                if not (planned.action is Action.REUSE and self._reuse(job)):
                    if planned.object.size > TINY:
                        self._crew.complete()
                    if not self._schedule.add(job):
                        return
                self._crew.spend()
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            self._end(error)
        finally:
            self._schedule.complete()

    def _reuse(self, job: Job) -> bool:
        planned = job.planned
        if not self._intake.store.blobs.holds(planned.digest, planned.object.size):
            return False
        self._give(Done(Receipt(planned.path, planned.object, planned.source, planned.digest, "manifest", 0)))
        return True

    def _work(self) -> None:
        try:
            while (work := self._next()) is not None:
                try:
                    self._do(work)
                finally:
                    self._schedule.rest()
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            self._end(error)

    def _next(self) -> Work | None:
        if self._crew.is_superfluous():
            return None
        return self._schedule.next()

    def _do(self, work: Work) -> None:
        if isinstance(work, Part):
            parted = work.parted
            self._give(self._tried(parted.job, lambda: self._advance(parted, partial(parted.fetch, work))))
        elif isinstance(work, Job):
            self._give(self._tried(work, partial(self._large, work)))
        else:
            self._small(work)

    def _tried(self, job: Job, step: Callable[[], T]) -> T | None:
        """Take a step; an object's failure leads to the next try or to the list of failures."""
        try:
            return step()
        except Cancelled:
            return None
        except SourceError as error:
            self._decide(job, error)
            return None

    def _small(self, jobs: list[Job]) -> None:
        """Bring some small objects in, and those that come next: while some are asked for, others are taken in turn."""
        claimed: deque[Claimed] = deque()
        try:
            while (jobs or claimed) and not self._is_over():
                self._claim_ahead(jobs, claimed)
                self._take_turns(claimed)
                self._settle(claimed)
                self._crew.spend()
                jobs = [] if self._crew.crowded else self._schedule.more(len(claimed))
        finally:
            self._crew.settle(0)
            for one in claimed:
                one.claim.keep()

    def _take_turns(self, claimed: deque[Claimed]) -> None:
        """Bring in some of what is claimed, before more is: the others are under way meanwhile."""
        for _ in range(-(-len(claimed) // TURN)):
            if self._is_over():
                break
            one = claimed.popleft()
            self._give(self._tried(one.job, partial(self._bring, one, fetch_whole)))

    def _claim_ahead(self, jobs: Sequence[Job], claimed: deque[Claimed]) -> None:
        """Claim small objects, add them to those that are claimed, and have their sources ask for them."""
        # Some may be left that were not asked for: they were taken before the source was known to be asked so.
        room = max(self._crew.ahead - len(claimed), 0)
        soon: list[Claimed] = []
        for job in jobs:
            found = self._tried(job, partial(self._claim, job))
            if isinstance(found, Claimed):
                claimed.append(found)
                soon.append(found)
            else:
                self._give(found)
        if soon := soon[: self._crew.reserve(min(room, len(soon)))]:
            self._asks_ahead = self._intake.ask_ahead([one.job for one in soon])
            for one in soon:
                one.asked = self._asks_ahead
            if not self._asks_ahead:
                self._settle(claimed)

    def _settle(self, claimed: Iterable[Claimed]) -> None:
        self._crew.settle(sum(one.asked for one in claimed))

    def _share(self, job: Job) -> Share:
        """Objects that can't be asked for ahead are left to whoever is free: a read of one may stand still for long."""
        if self._intake.asks_ahead(job):
            return Share(self._crew.size, self._crew.ahead)
        return Share(self._intake.limits.in_flight, RUN)

    def _is_over(self) -> bool:
        return self._schedule.closed or bool(self._intake.stop)

    def _large(self, job: Job) -> Done | None:
        """Open a large object for all threads."""
        parted = None
        try:
            found = self._claim(job)
            if not isinstance(found, Claimed):
                return found
            parted = self._bring(found, partial(Parted, buffers=self._buffers))
        finally:
            self._schedule.opened(parted)
        return self._advance(parted, parted.begin)

    def _claim(self, job: Job) -> Claimed | Done | None:
        """Look the object up and claim it, unless somebody else brings it in or did."""
        job = job.looked_up()
        claim = self._intake.store.blobs.claim(*job.claim_words())
        if claim is None:
            self._schedule.later(self._waits.after_refusal(job))
            return None
        try:
            held = self._intake.held(job)
        except BaseException:
            claim.keep()
            raise
        if held is None:
            return Claimed(job, claim)
        claim.drop()
        return held

    def _bring(self, one: Claimed, bring: Callable[[Intake, Job, Claim], T]) -> T:
        try:
            return bring(self._intake, one.job, one.claim)
        except BaseException:
            one.claim.keep()
            raise

    def _advance(self, parted: Parted, step: Callable[[], Done | None]) -> Done | None:
        """Take a large object a step further. The first step that fails abandons it; those after it are mute."""
        try:
            done = step()
        except BaseException as error:
            # What a volume failed to write or sync may look whole and not be.
            first = parted.abandon(discard=isinstance(error, ChecksumMismatch | ObjectChanged | CacheError))
            self._schedule.ended(parted)
            if first:
                raise
            return None
        if done:
            self._schedule.ended(parted)
        return done

    def _decide(self, job: Job, error: StagegateError) -> None:
        following = job.after(error)
        if following is not None:
            self._schedule.again(following)
            return
        error.object = job.planned.path
        with self._lock:
            self._intake.stats.failures.append(error)
            enough = len(self._intake.stats.failures) > self._max_failed
        if enough:
            self._schedule.close()

    def _give(self, done: Done | None) -> None:
        if done is None:
            return
        while len(self.results) >= BACKLOG and not self._intake.stop:
            time.sleep(0.01)  # the consumer is slower than the transfer
        self.results.append(done)
        if len(self.results) >= MANY and not self._news.is_set():
            self._news.set()

    def _end(self, error: BaseException) -> None:
        with self._lock:
            self.fatal = self.fatal or error
        self._intake.stop.end()
        self._tell_end()

    def _tell_end(self) -> None:
        self._ended = True
        self._news.set()
