"""Worker processes of one transfer: each runs a loop of its own, for objects that wait in this process.

    plan ─→ queues ─→ this process' loop ──────────────────────────┬─→ results ─→ consumer
              └─→ worker process: read, hash, write, commit ─→ ────┘

One interpreter uses one core. A worker takes objects from the queues while it has few left, so whoever is faster reads
more. It hands back what it could not read, and what is tried next is decided here. An object of a worker that died is
read by another; what it had committed stays.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from prefect_stagegate.cache.space import room
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import Receipt
from prefect_stagegate.redaction import redact
from prefect_stagegate.transport.transfer.context import Done, TransferContext
from prefect_stagegate.transport.transfer.job import FetchJob, SourceGroup
from prefect_stagegate.transport.transfer.worker_process import (
    Credentials,
    End,
    Objects,
    Quiet,
    Remembered,
    Setup,
    Stored,
    WorkerReport,
    packed,
)
from prefect_stagegate.units import count_text

if TYPE_CHECKING:
    from prefect_stagegate.transport.transfer.transfer_engine import TransferEngine

PROGRAM = "from prefect_stagegate.transport.transfer.worker_process import main; main()"
HANDED = 512
"""Maximum objects of a worker, with those that are not remembered yet. Each is an open file."""
HANDED_BYTES = 64 << 20
"""Bytes of the objects that a worker is yet to read, at most, if they are more than `LARGE` objects."""
LARGE = 2
"""So many it may have whatever their size: one begins before the other ends."""
SILENT_SECONDS = 30.0
"""A worker without a sign of life for so long is killed. It gives one each second."""
LAST_SECONDS, STOP_SECONDS, KILL_SECONDS = 10.0, 0.3, 1.0
"""Seconds that workers have to end, after all is done, after a stop, and after SIGKILL."""
LINE_LENGTH = 300
"""Bytes that an error quotes of what a worker wrote last."""
DEATHS = 2
"""Workers that die in a row, with no object read in between, end the transfer."""
LOOK_SECONDS = 1.0
"""Seconds of silence that one look counts, at most."""
_POLL = 0.1

log = logging.getLogger(__name__)


class WorkerDied(Exception):
    """The connection to a worker has ended, or the worker gives no sign of life."""


class RemoteClaim:
    """The claim that a worker holds on an object."""

    __slots__ = ("_job", "_worker")

    def __init__(self, worker: TransferWorker, job: FetchJob) -> None:
        self._worker, self._job = worker, job

    def drop(self) -> None:
        """Have the worker drop it."""
        self._worker.remembered.append(self._job)


class TransferWorker:
    """One worker, and the objects that it has.

    Raises:
        OSError: It can't be started.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, FetchJob] = {}
        """What it is yet to read, by path."""
        self.size = 0
        """Bytes of it."""
        self.held: dict[str, FetchJob] = {}
        """What it read, and whose claims it holds."""
        self.remembered: deque[FetchJob] = deque()
        """Whose claims may go."""
        self.dropped: deque[FetchJob] = deque()
        """Whose claims it was told to drop, and has not dropped yet."""
        self.given: deque[FetchJob] = deque()
        """What it gets next."""
        self.has_asked = False
        """Whether it waits for objects."""
        self.outbox: deque[Objects | Quiet | Credentials | End] = deque()
        self.silent = 0.0
        """Seconds without a sign of life."""
        self.has_begun = False
        """Whether it gave one at all."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Not closed at the worker's end: a late `wake` would write to another file that got the same number.
        weakref.finalize(self, os.close, self._wake)
        self.connection, theirs = Pipe()
        with theirs, ExitStack() as failed:
            failed.callback(self.connection.close)
            self._output = failed.enter_context(tempfile.TemporaryFile())
            self.process = start_python(
                *("-P", "-c", PROGRAM, str(os.getpid()), str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdout=self._output,
                stderr=self._output,
                # A terminal's Ctrl-C is for this process, which ends the workers in order. In the same session: when
                # this process dies, the kernel wakes a stopped worker.
                process_group=0,
            )
            failed.pop_all()  # closed by `end`

    @property
    def room(self) -> int:
        """How many more objects it may have."""
        if self.size >= HANDED_BYTES:
            return max(0, LARGE - len(self.jobs))
        return HANDED - len(self.jobs) - len(self.held)

    def take(self, path: str) -> FetchJob:
        """The job of an object that it has read, or could not read."""
        job = self.jobs.pop(path)
        self.size -= job.planned.object.size
        return job

    def give(self, jobs: Sequence[FetchJob]) -> None:
        """Give it the objects that it asked for. From any thread."""
        self.given.extend(jobs)
        self.has_asked = False
        if jobs:  # else its thread asks again after a while: at once, it would do nothing else until some wait
            self.wake()

    def wake(self) -> None:
        """End the wait of the thread that serves it."""
        os.eventfd_write(self._wake, 1)

    def send(self) -> None:
        """Send what waits to be sent.

        Raises:
            WorkerDied: It takes nothing any more.
        """
        dropped = [self.remembered.popleft() for _ in range(len(self.remembered))]
        self.dropped.extend(dropped)
        for job in dropped:
            self.held.pop(job.planned.path, None)
        with _alive():
            if dropped:
                self.connection.send(Remembered([job.planned.path for job in dropped]))
            while self.outbox:
                self.connection.send(self.outbox.popleft())

    def next_report(self) -> WorkerReport | None:
        """What it says next; None after a while, or when something is to be sent.

        Raises:
            WorkerDied: It has died, or is silent.
        """
        ready = wait([self.connection, self._wake], _POLL)
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self.connection not in ready:
            if self.silent > SILENT_SECONDS:
                raise WorkerDied
            return None
        with _alive():
            report: WorkerReport = self.connection.recv()
        self.silent = 0.0
        self.has_begun |= report.asks is None  # before, its sources are not open
        return report

    def end(self, seconds: float) -> str:
        """End it in every case, after so many seconds; returns how it ended, with the last line that it wrote."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.process.kill()
        # Not for ever: one that waits for the disk dies when the disk has answered.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(KILL_SECONDS)
        status = self.process.returncode
        self.connection.close()
        with self._output:
            self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - LINE_LENGTH))
            lines = self._output.read().decode(errors="replace").strip().splitlines()
        if status is None:
            return "can't be killed"
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return redact(f"{how}: {lines[-1]}") if lines else how


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise WorkerDied from error


def start_python(*words: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start another process of this interpreter with the same code; `options` are those of `Popen`.

    Raises:
        OSError: It can't be started, or this process' program is no Python interpreter.
    """
    # The same code, also where a program has changed where modules are looked for.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([_interpreter(), *words], env=environment, **{"stdin": subprocess.DEVNULL, **options})


def _interpreter() -> str:
    # A program with an interpreter inside, or one that a packager made, would start a second time.
    program = sys.executable or ""
    if getattr(sys, "frozen", False) or not Path(program).name.startswith("python"):
        raise OSError(errno.ENOEXEC, f"this process runs in {program!r}, which is no Python interpreter")
    return program


class Processes:
    """The workers of one transfer.

    Args:
        engine: Gives objects, and takes results.
        context: Of the transfer.
        groups: The sources. Workers read those that another process can open.
        count: The processes, this one included.
    """

    def __init__(
        self,
        engine: TransferEngine,
        context: TransferContext,
        groups: Sequence[SourceGroup],
        count: int,
    ) -> None:
        self._engine, self._context, self._count = engine, context, count
        shared = [
            (position, group.opening)
            for position, group in enumerate(groups)
            if group.opening and group.opening.is_enough
        ]
        self._positions = {position: number for number, (position, _) in enumerate(shared)}
        self._openings = [opening for _, opening in shared]
        self._retriers = [context.retrier_of(groups[position].primary) for position, _ in shared]
        without = tuple(replace(opening, credentials=dict) for opening in self._openings)
        level = logging.getLogger("prefect_stagegate").getEffectiveLevel()
        cache = context.store
        self._setup = pickle.dumps(Setup(cache.root, cache.durability, context.limits.share(count), without, level))
        self._workers: list[TransferWorker] = []
        self._threads: list[Thread] = []
        self._stopped = self._ended = False
        self._deaths = 0
        self._looked = time.monotonic()

    def start(self) -> None:
        """Start the workers, each with a thread here."""
        for number in range(self._count - 1):
            run = partial(copy_context().run, self._run)
            self._threads.append(Thread(target=run, name=f"stagegate-worker-{number}", daemon=True))
            self._threads[-1].start()

    def look(self) -> None:
        """Kill workers that give no further sign of life, and pass a server's Retry-After on."""
        # Nobody heard them while this process itself was stopped, or its machine.
        seconds = min(time.monotonic() - self._looked, LOOK_SECONDS)
        self._looked = time.monotonic()
        for worker in list(self._workers):
            worker.silent += seconds if worker.has_begun else 0.0
            if worker.silent > SILENT_SECONDS:
                worker.process.kill()
        for number, retrier in enumerate(self._retriers):
            if seconds := retrier.new_quiet():
                self._keep_quiet(Quiet(number, time.monotonic() + seconds))

    def stop(self) -> None:
        """Have the workers read no further."""
        self._stopped = True
        for worker in list(self._workers):
            worker.wake()

    def join(self, until: float) -> None:
        """Wait until all have reported what they did, until a time of the monotonic clock at most."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def end(self, *, is_synced: bool) -> None:
        """End the workers in every case. `is_synced`: what they reported is durable."""
        # Nobody waits for the end of what was stopped.
        until = time.monotonic() + (LAST_SECONDS if is_synced else STOP_SECONDS)
        self.join(until)
        # Before they are taken out of the list: a thread that adds one more ends that by itself.
        self._ended = True
        ending = [self._workers.pop() for _ in range(len(self._workers))]
        for worker in ending:
            worker.outbox.append(End(is_synced))
            with suppress(WorkerDied):
                # One that was stopped takes nothing, and must not be waited for.
                os.set_blocking(worker.connection.fileno(), False)
                worker.send()
        for worker in ending:
            self._end(worker, max(0.0, until - time.monotonic()))

    def _end(self, worker: TransferWorker, seconds: float) -> str:
        """End a worker, and the claims that it left where it was killed; returns how it ended."""
        how = worker.end(seconds)
        if worker.process.returncode:
            blobs = self._context.store.blobs
            for job in (*worker.held.values(), *worker.dropped):
                if claim := blobs.claim(*job.claim_words()):
                    claim.drop()
            for job in worker.jobs.values():
                if claim := blobs.claim(*job.claim_words()):
                    claim.keep()
        return how

    # ---------------------------------------------------------------- a worker's thread

    @property
    def _is_over(self) -> bool:
        return self._stopped or bool(self._context.stop)

    def _run(self) -> None:
        try:
            while not self._is_over:
                try:
                    worker = TransferWorker()
                except OSError as error:
                    self._give_up(error.strerror or str(error))
                    return
                self._workers.append(worker)
                try:
                    if not self._ended:
                        self._serve(worker)
                        # What it left, after too many failures, is not read.
                        self._take_back(worker)
                        return
                except WorkerDied:
                    pass
                if not self._bury(worker):
                    return
        except BaseException as error:  # noqa: BLE001 - ends the transfer
            self._engine.fail(error)

    def _serve(self, worker: TransferWorker) -> None:
        with _alive():
            worker.connection.send_bytes(self._setup)
        for number, retrier in enumerate(self._retriers):
            if seconds := retrier.quiet_seconds():
                worker.outbox.append(Quiet(number, time.monotonic() + seconds))
        is_told = False
        while True:
            if self._is_over and not is_told:
                is_told = True
                worker.outbox.append(End(is_synced=False))
                if not worker.has_begun:  # it has read nothing
                    worker.process.kill()
            # One that imports for minutes, from a file server that all nodes ask, keeps no object waiting.
            if worker.has_begun and not (is_told or worker.has_asked) and worker.room > 0:
                worker.has_asked = True
                self._engine.hand_to(worker.give, self._positions, worker.room, HANDED_BYTES, self._count)
            if worker.given and not is_told:
                worker.outbox.append(self._handed(worker))
            worker.send()
            report = worker.next_report()
            if report:
                self._take(worker, report)
                if report.is_last:
                    return

    def _handed(self, worker: TransferWorker) -> Objects:
        rows = []
        while worker.given:
            job = worker.given.popleft()
            worker.jobs[job.planned.path] = job
            worker.size += job.planned.object.size
            rows.append(packed(job.planned, self._positions[job.planned.source]))
            size = job.planned.object.size
            # Of a large object, an interrupted run may have left some bytes.
            there = self._context.store.blobs.partial_bytes(*job.claim_words()) if size > HANDED_BYTES else 0
            self._context.space.take(max(0, room(size) - there))
        return Objects(rows)

    def _take(self, worker: TransferWorker, report: WorkerReport) -> None:
        if report.stored:
            self._deaths = 0
            self._engine.results.add_all([self._done(worker, stored) for stored in report.stored])
        for _ in range(report.dropped):
            worker.dropped.popleft()
        for path, error in report.failed:
            self._engine.handle_failure(worker.take(path), error)
        if report.figures:
            self._context.stats.add(report.figures)
        for quiet in report.quiet:
            self._retriers[quiet.source].keep_quiet(quiet.until - time.monotonic())
            self._keep_quiet(quiet)
        if report.asks is not None:
            worker.outbox.append(Credentials(self._credentials(report.asks)))
        self._show(report)
        if report.fatal:
            self._engine.fail(report.fatal)

    def _show(self, report: WorkerReport) -> None:
        progress = self._context.progress
        if report.started:
            progress.started(report.started)
        if report.moved:
            progress.moved(report.moved)
        if report.waits:
            progress.waiting(report.waits)
        for name, level, text in report.log:
            logging.getLogger(name).log(level, "%s", text)

    def _done(self, worker: TransferWorker, stored: Stored) -> Done:
        path, digest, proof, fetched, is_kept, unsynced = stored
        job = worker.held[path] = worker.take(path)
        if unsynced:
            self._context.store.blobs.add_unsynced(digest)
        listed = job.planned.object
        receipt = Receipt(path, listed, job.planned.source, digest, proof, fetched)
        row = (job.source.identity, listed.key, listed.pin, listed.size, digest) if is_kept else None
        return Done(receipt, RemoteClaim(worker, job), row, unsynced)

    def _credentials(self, source: int) -> Mapping[str, Any] | StagegateError:
        try:
            return self._openings[source].credentials()
        except StagegateError as error:
            return error

    def _keep_quiet(self, quiet: Quiet) -> None:
        for worker in list(self._workers):
            worker.outbox.append(quiet)
            worker.wake()

    def _bury(self, worker: TransferWorker) -> bool:
        """Have others read what a worker that died was yet to read; returns whether to start another one.

        Raises:
            StagegateError: The one before it died, too.
        """
        try:
            self._workers.remove(worker)
        except ValueError:  # `end` has it
            return False
        how, left = self._end(worker, STOP_SECONDS), count_text(len(worker.jobs) + len(worker.given), "object")
        self._take_back(worker)
        if self._is_over:
            return False
        if not worker.has_begun:
            self._give_up(how)
            return False
        self._deaths += 1
        log.warning("a worker process %s; others read its %s", how, left)
        if self._deaths >= DEATHS:
            raise StagegateError(
                f"A worker process of the transfer {how}, and so did the one before it",
                hint="If it was killed for memory, give the job more, or set STAGEGATE_PROCESSES=1.",
            )
        return True

    def _take_back(self, worker: TransferWorker) -> None:
        worker.given.extendleft(worker.jobs.values())
        self._engine.take_back(worker.given)

    def _give_up(self, why: str) -> None:
        """Go on with one process less, which gets its share."""
        log.warning("no further worker process can be started: %s", why)
        self._count -= 1
        self._engine.share(self._count)
