"""A worker process of a transfer: a loop of its own, for objects that the starting process hands to it.

    objects ─→ TransferEngine: claim, read, hash, write, verify, commit ─→ reports of what is done, failed and moved

It reads each object once from its source. Another try elsewhere, what is remembered, and the sync are the starting
process's. It ends when that process ends or closes the connection.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.space import Unlimited
from prefect_stagegate.durable import Durability
from prefect_stagegate.errors import SourceError, StagegateError
from prefect_stagegate.model import Action, Pin, PlannedObject, Proof, SourceObject
from prefect_stagegate.sources.adapter import Source
from prefect_stagegate.sources.opening import Opening
from prefect_stagegate.transport.transfer.context import TransferContext
from prefect_stagegate.transport.transfer.job import FetchJob, SourceGroup
from prefect_stagegate.transport.transfer.progress import Figures, Progress, TransferStats
from prefect_stagegate.transport.transfer.retry import Retrier, Stop
from prefect_stagegate.transport.transfer.transfer_engine import TransferEngine
from prefect_stagegate.transport.transfer_limits import Limits

if TYPE_CHECKING:
    from prefect_stagegate.cache.ingest import Claim
    from prefect_stagegate.transport.transfer.processes import RemoteClaim

REPORT_SECONDS = 0.05
"""Seconds between two reports while objects are read."""
IDLE_REPORT_SECONDS = 1.0
"""Seconds between two reports while nothing happens: they say that the process lives."""
POLL_SECONDS = 1.0
"""Seconds between two looks whether the starting process lives."""
MANY = 1 << 20
"""More objects than a transfer hands to one process at a time: how many may fail is not decided here."""

# ── what the starting process sends ─────────────────────────────────────────────────────────────────────────────────


class Setup(NamedTuple):
    """The first message."""

    root: Path
    durability: Durability
    limits: Limits
    """This process's share."""
    openings: tuple[Opening, ...]
    """Of the sources, without their credentials, which the process asks for."""
    level: int
    """Log records below it are not sent."""


ObjectRow = tuple[Any, ...]


class Objects(NamedTuple):
    """Objects to read: rows of `packed`."""

    rows: list[ObjectRow]


def packed(planned: PlannedObject, source: int) -> ObjectRow:
    """A planned object as plain values, which take a tenth of its time to send; `source` is its position here."""
    listed, pin = planned.object, planned.object.pin
    where = planned.path, source, planned.digest, planned.doubted
    pinned = pin.kind, pin.value, pin.strength
    return (*where, *pinned, listed.key, listed.size, listed.modified, listed.checksums, listed.state)


def _unpacked(row: ObjectRow) -> PlannedObject:
    path, source, digest, doubted, kind, value, strength, key, *listed = row
    pinned = SourceObject(key, listed[0], Pin(kind, value, strength), *listed[1:])
    return PlannedObject(path, pinned, source, Action.FETCH, digest, doubted)


class Remembered(NamedTuple):
    """Objects whose claims may go."""

    paths: list[str]


class Quiet(NamedTuple):
    """A server asked another process to wait."""

    source: int
    until: float
    """By the monotonic clock, which all processes of a machine share."""


class Credentials(NamedTuple):
    """The answer to `WorkerReport.asks`: options, or why there are none."""

    options: Mapping[str, Any] | StagegateError


class End(NamedTuple):
    """Read no further, and report what is done. The second one ends the process."""

    is_synced: bool
    """Whether all reported blobs are durable."""


# ── what it sends ───────────────────────────────────────────────────────────────────────────────────────────────────


Stored = tuple[str, str, Proof, int, bool, int]
"""Of an object that is in the cache: its path, digest and proof, the bytes that came over the wire, whether it may be
remembered, and `Done.unsynced`."""


@dataclass(slots=True)
class WorkerReport:
    """What happened since the last report."""

    stored: list[Stored] = field(default_factory=list)
    failed: list[tuple[str, StagegateError]] = field(default_factory=list)
    """Paths of objects, and why they could not be read."""
    dropped: int = 0
    """Claims."""
    moved: int = 0
    """Bytes that came over the wire."""
    started: str = ""
    """The path of the object that was begun last."""
    waits: str = ""
    """For whom the process waits."""
    figures: Figures | None = None
    quiet: list[Quiet] = field(default_factory=list)
    log: list[tuple[str, int, str]] = field(default_factory=list)
    """Logger, level and text of records."""
    asks: int | None = None
    """The source whose credentials are asked for."""
    fatal: BaseException | None = None
    """What ends the whole transfer."""
    is_last: bool = False


class _Reporter(Progress):
    """Collects what happens until the next report. Called by many threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next = WorkerReport()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._sent = 0.0

    def started(self, path: str) -> None:
        self._next.started = path

    def moved(self, size: int) -> None:
        with self._lock:
            self._next.moved += size

    def waiting(self, message: str) -> None:
        self._next.waits = message

    def failed(self, job: FetchJob, error: StagegateError) -> None:
        """Report an object that could not be read."""
        with self._lock:
            self._next.failed.append((job.planned.path, error))

    def dropped(self, claims: int) -> None:
        """Report claims that were dropped."""
        with self._lock:
            self._next.dropped += claims

    def logged(self, record: logging.LogRecord) -> None:
        """Report what was logged."""
        with self._lock:
            self._next.log.append((record.name, record.levelno, record.getMessage()))

    def send(self, **more: Any) -> None:
        """Send what was collected, and these fields; nothing where nothing happened, but for a sign of life."""
        with self._sending:
            with self._lock:
                report, self._next = replace(self._next, **more), WorkerReport()
            if report != WorkerReport() or time.monotonic() - self._sent >= IDLE_REPORT_SECONDS:
                self._connection.send(report)
                self._sent = time.monotonic()


class _LogHandler(logging.Handler):
    def __init__(self, reporter: _Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.logged(record)


class _WorkerEngine(TransferEngine):
    """Hands failures to the starting process, which decides what is tried next."""

    def __init__(self, *args: Any, failed: Callable[[FetchJob, StagegateError], None]) -> None:
        super().__init__(*args)
        self._failed = failed

    def _try_next(self, job: FetchJob, error: SourceError) -> None:
        self._failed(job, error)
        self._loop.call(self._count_finished)


class _Worker:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reporter = _Reporter(connection)
        self._objects: queue.SimpleQueue[PlannedObject | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Mapping[str, Any] | StagegateError] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._claims: dict[str, Claim | RemoteClaim] = {}
        """Of objects that the starting process has not remembered yet."""
        self._retriers: list[Retrier] = []
        self._quiets: queue.SimpleQueue[Quiet] = queue.SimpleQueue()
        """Servers' Retry-After that others got, also before the sources are open here."""
        self._stop = Stop(None)
        self._end: queue.SimpleQueue[End] = queue.SimpleQueue()

    def run(self) -> None:
        setup: Setup = self._connection.recv()
        logging.basicConfig(handlers=[_LogHandler(self._reporter)], level=setup.level)
        threading.Thread(target=self._receive, name="stagegate-receive", daemon=True).start()
        cache = Cache.open(setup.root, create=False, durability=setup.durability)
        with ExitStack() as stack:
            sources, scratch = [], str(cache.layout.ingest)
            for position, opening in enumerate(setup.openings):
                source = replace(opening, credentials=partial(self._ask, position)).open(scratch)
                sources.append(stack.enter_context(closing(source)))
            self._read(cache, sources, setup.limits)
        if self._end.get().is_synced:
            cache.blobs.synced_elsewhere()

    def _read(self, cache: Cache, sources: list[Source], limits: Limits) -> None:
        stats = TransferStats()
        context = TransferContext(cache, Unlimited(), sources, limits, self._reporter, self._stop, stats)
        self._retriers = [context.retrier_of(source) for source in sources]
        groups = [SourceGroup(source) for source in sources]
        engine = _WorkerEngine(context, iter(self._objects.get, None), groups, MANY, failed=self._reporter.failed)
        engine.start()
        try:
            while not engine.ended and not self._stop:
                engine.wait(REPORT_SECONDS)
                self._report(engine, stats)
        finally:
            self._objects.put(None)
            engine.stop()
        self._report(engine, stats, fatal=engine.fatal, is_last=True)
        engine.results.close()

    def _report(self, engine: TransferEngine, stats: TransferStats, **more: Any) -> None:
        while not self._quiets.empty():
            heard = self._quiets.get()
            self._retriers[heard.source].keep_quiet(heard.until - time.monotonic())
        done = engine.results.take(MANY)
        self._claims.update({each.receipt.path: each.claim for each in done if each.claim})
        stored: list[Stored] = [
            (it.path, it.digest, it.proof, it.fetched, each.row is not None, each.unsynced)
            for each in done
            for it in (each.receipt,)
        ]
        seconds = [retrier.new_quiet() for retrier in self._retriers]
        quiet = [Quiet(number, time.monotonic() + each) for number, each in enumerate(seconds) if each]
        self._reporter.send(stored=stored, quiet=quiet, figures=stats.taken(), **more)

    def _receive(self) -> None:
        """Take messages until the connection or the starting process ends: then this process ends, too."""
        try:
            # Another process may hold the connection open when the starting one was killed.
            while os.getppid() == int(sys.argv[-2]):
                if self._connection.poll(POLL_SECONDS):
                    self._take(self._connection.recv())
        except (EOFError, OSError):
            pass
        except BaseException as error:  # noqa: BLE001 - the starting process raises it
            self._reporter.send(fatal=error)
        os._exit(1)

    def _take(self, message: Objects | Remembered | Quiet | Credentials | End) -> None:
        if isinstance(message, Objects):
            for row in message.rows:
                self._objects.put(_unpacked(row))
        elif isinstance(message, Remembered):
            for path in message.paths:
                if claim := self._claims.pop(path, None):
                    claim.drop()
            self._reporter.dropped(len(message.paths))
        elif isinstance(message, Quiet):
            self._quiets.put(message)
        elif isinstance(message, Credentials):
            self._answers.put(message.options)
        elif self._stop:
            self._end.put(message)
        else:
            self._stop.end()

    def _ask(self, source: int) -> Mapping[str, Any]:
        """The credentials of a source as they are now."""
        with self._asking:
            self._reporter.send(asks=source)
            answer = self._answers.get()
        if isinstance(answer, StagegateError):
            raise answer
        return answer


def main() -> None:
    """Work for the process whose number is the last argument but one; the last is the connection to it."""
    # Whoever sends them to all processes of a job reaches the starting one, which ends this one in order.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    status = 1
    try:
        _Worker(Connection(int(sys.argv[-1]))).run()
        status = 0
    except BaseException:  # noqa: BLE001 - the starting process quotes its last line
        traceback.print_exc()
    finally:
        # Threads that wait for silent servers are left behind.
        os._exit(status)
