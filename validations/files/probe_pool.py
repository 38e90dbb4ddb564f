"""Probe files in confined processes, one for each core. A decoder that crashes fails its file, and nothing else."""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect_stagegate.environment.limits import capture_limits
from prefect_stagegate.errors import Cancelled, ValidationError
from prefect_stagegate.model import Entry
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.calls import ProbeCall
from prefect_stagegate.validations.files.facts import Defect, fault_of_copy
from prefect_stagegate.validations.worker.confinement import environment

COMMAND = (sys.executable, "-P", "-m", "prefect_stagegate.validations.files.probe_worker")
LEAST_BATCH, MOST_BATCH, BATCH_BYTES = 16, 64, 64 << 20
"""The least and most files of a batch, and its most bytes: larger ones leave a core idle at the end."""
BATCHES = 16
"""Batches that each process gets at least, where the files are enough: then all end at about the same time."""
FILE_SECONDS, BYTES_A_SECOND = 60.0, 4 << 20
"""How long a file may take: a minute, and longer for what can't be read within it."""
START_SECONDS = 120.0
MOST_DEATHS = 200
"""Processes that may die before the others are given up."""
DEATHS_OF_LATE = 10
"""Deaths that a file counts as which takes too long: it costs a minute or more."""
MOST_REPLY = 1 << 16
"""Bytes of a process's reply to a file."""
MOST_TEXT = 500
"""Characters of a defect."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Each core has a process; the threads of libraries would only take memory."""
PROGRESS_SECONDS = 5.0
LOOK_SECONDS = 0.2
"""How often cancelling, deadlines and progress are looked after."""
LAST_OUTPUT = 2000
"""Bytes of a process's standard error that an error is made of."""
LAST_SECONDS = 2.0
"""How long a process may take to end after it closed its output."""

Job = tuple[Entry, Sequence[ProbeCall]]


def probe_in_workers(
    view: Path,
    jobs: Sequence[Job],
    *,
    cancel: threading.Event | None = None,
    progress: Callable[[str], None],
) -> tuple[dict[str, Defect], str]:
    """Probe files in processes that can open the version and nothing else.

    Args:
        view: The version's folder.
        jobs: The files, each with its probes.
        cancel: Set it to stop.
        progress: Called with lines for people, from this thread.

    Returns:
        The files with a defect, by path, and what confined the processes.

    Raises:
        Cancelled: `cancel` was set.
        ValidationError: A process could not be started, or too many died.
    """
    available = cores()
    most = min(max(LEAST_BATCH, len(jobs) // (BATCHES * available)), MOST_BATCH)
    pool = _Pool(view, _batches(jobs, most))
    count = min(available, pool.batches.qsize())
    with ThreadPoolExecutor(count) as threads:
        running = {threads.submit(pool.work) for _ in range(count)}
        try:
            reported = time.monotonic()
            while running:
                ended, running = wait(running, LOOK_SECONDS)
                for future in ended:
                    future.result()
                if cancel and cancel.is_set():
                    raise Cancelled("The validation was stopped")
                pool.end_late_workers()
                if time.monotonic() - reported > PROGRESS_SECONDS:
                    reported = time.monotonic()
                    progress(f"probed {pool.done:,} of {count_text(len(jobs), 'file')}")
        finally:
            # Threads wait for their process only, so ending those lets all of them end.
            pool.stop()
    return pool.defects, pool.sandbox


def cores() -> int:
    """How many cores this process may use: of its control group, where that gives less than the machine has."""
    quota = capture_limits()["cpus"]
    available = len(os.sched_getaffinity(0))
    return available if isinstance(quota, str) else max(1, min(available, math.ceil(quota)))


class _Pool:
    """What the threads share: each thread owns a process, and takes batches until none is left."""

    def __init__(self, view: Path, batches: Iterable[Sequence[Job]]) -> None:
        self.view = view
        self.batches: queue.SimpleQueue[Sequence[Job]] = queue.SimpleQueue()
        for batch in batches:
            self.batches.put(batch)
        self.defects: dict[str, Defect] = {}
        self.done = self.deaths = 0
        self.sandbox = ""
        self._stopped = False
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()

    def work(self) -> None:
        """Start a process and give it batches; start another one where it dies."""
        while not self._stopped and not self.batches.empty():
            with _start_worker(self.view) as worker:
                with self._lock:
                    self._workers.add(worker)
                try:
                    self.sandbox = worker.start()
                    self._feed(worker)
                finally:
                    with self._lock:
                        self._workers.discard(worker)

    def _feed(self, worker: _Worker) -> None:
        """Give a process batches until none is left or it dies."""
        while not self._stopped:
            try:
                batch = self.batches.get_nowait()
            except queue.Empty:
                return
            left = deque(batch)
            try:
                for defect in worker.probe(batch):
                    self._record(left.popleft(), defect)
            except _WorkerDied as death:
                if not self._stopped:
                    self._bury(batch, left, death)
                return

    def _bury(self, batch: Sequence[Job], left: deque[Job], death: _WorkerDied) -> None:
        """Blame the file that a process died of; those after it are probed by another one.

        A crash may be the work of a file before it, so a file that had company is probed once more, alone.
        """
        with self._lock:
            self.deaths += DEATHS_OF_LATE if death.timed_out else 1
        if self.deaths > MOST_DEATHS:
            raise ValidationError(
                f"Too many processes that probe files died; the last, at {left[0][0].path}: {death}",
                hint="Name fewer files in the contract, or look at their source: many crash or hang their decoder.",
            )
        last = left.popleft()
        if death.timed_out or len(batch) == 1:
            self._record(last, death.defect())
        else:
            self.batches.put([last])
        if left:
            self.batches.put(left)

    def _record(self, job: Job, defect: Defect | None) -> None:
        with self._lock:
            self.done += 1
            if defect:
                self.defects[job[0].path] = defect

    def end_late_workers(self) -> None:
        """Kill the processes that take too long for a file."""
        with self._lock:
            for worker in self._workers:
                if time.monotonic() > worker.deadline:
                    worker.timed_out = True
                    worker.process.kill()

    def stop(self) -> None:
        """Kill all processes; the threads end then."""
        self._stopped = True
        with self._lock:
            for worker in self._workers:
                worker.process.kill()


def _batches(jobs: Iterable[Job], most: int) -> Iterator[list[Job]]:
    """Batches of files that get the same probes, each of `most` files at most."""
    batch: list[Job] = []
    size = 0
    for job in jobs:
        full = len(batch) == most or size + job[0].size > BATCH_BYTES
        if batch and (full or job[1] != batch[0][1]):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += job[0].size
    if batch:
        yield batch


@dataclass(eq=False)
class _WorkerDied(Exception):
    """A process ended before it replied."""

    status: int
    timed_out: bool = False
    output: str = field(default="", repr=False)

    def __str__(self) -> str:
        if self.timed_out:
            return "a file took too long"
        reason = signal.Signals(-self.status).name if self.status < 0 else f"status {self.status}"
        return f"{reason}; its last output: {self.output}" if self.output else reason

    def defect(self) -> Defect:
        """What the death says about the file that the process had alone."""
        if self.timed_out:
            return fault_of_copy("probing it took too long")
        if self.status == -signal.SIGKILL:
            problem = "probing it was killed, most often by the system's out-of-memory killer"
            return Defect(problem, "Validate again with more memory.", of_copy=True)
        return Defect(f"its decoder crashed on it ({self})"[:MOST_TEXT], "Look at it with care: damaged or hostile.")


def _bounded(result: tuple[str, str, bool] | None) -> Defect | None:
    """The defect that a process reported of a file."""
    if result is None:
        return None
    problem, fix, of_copy = result
    return Defect(str(problem)[:MOST_TEXT], str(fix)[:MOST_TEXT], bool(of_copy))


def _start_worker(view: Path) -> _Worker:
    try:
        return _Worker(view)
    except OSError as error:
        raise _not_started(error) from error


def _not_started(reason: Exception) -> ValidationError:
    return ValidationError(
        f"A process that probes files could not start: {reason}",
        hint="It says nothing about the data: look at its last output.",
    )


class _Worker:
    """One process. Leaving the block ends it."""

    def __init__(self, view: Path) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        # The kernel kills the process when the thread that started it ends.
        self.process = subprocess.Popen(
            [*COMMAND, str(view.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment(os.environ, os.devnull) | ONE_THREAD,
        )
        self.deadline = time.monotonic() + START_SECONDS
        self.timed_out = False

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._stderr):
            with suppress(BrokenPipeError):
                if pipe:
                    pipe.close()

    def start(self) -> str:
        """Wait until the process is confined; returns by what.

        Raises:
            ValidationError: It died before.
        """
        try:
            return str(self._reply()["sandbox"])
        except _WorkerDied as death:
            raise _not_started(death) from death

    def probe(self, batch: Sequence[Job]) -> Iterator[Defect | None]:
        """Probe files, each within its time; None for each that passes all its probes.

        Raises:
            _WorkerDied: The process ended, or was killed, before it replied about the next file.
        """
        request = {
            "probes": [(call.name, call.settings) for call in batch[0][1]],
            "files": [(entry.path, entry.size) for entry, _ in batch],
        }
        assert self.process.stdin is not None  # noqa: S101 - asked for above
        with suppress(BrokenPipeError):  # its death shows when it does not reply
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        for entry, _ in batch:
            self.deadline = time.monotonic() + FILE_SECONDS + entry.size / BYTES_A_SECOND
            result = self._reply()
            try:
                defect = _bounded(result)
            except (TypeError, ValueError):
                raise self._death() from None
            yield defect
        self.deadline = time.monotonic() + START_SECONDS

    def _reply(self) -> Any:
        assert self.process.stdout is not None  # noqa: S101 - asked for above
        line = self.process.stdout.readline(MOST_REPLY)
        # A process that a file took over may write anything, or no end of it.
        with suppress(ValueError, RecursionError):
            if line.endswith(b"\n"):
                return json.loads(line)
        raise self._death()

    def _death(self) -> _WorkerDied:
        """How the process ended. It is killed where it replied what it may not."""
        assert self.process.stdout is not None  # noqa: S101 - asked for above
        self.process.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_SECONDS)
        self.process.kill()
        return _WorkerDied(self.process.wait(), self.timed_out, self._last_output())

    def _last_output(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - LAST_OUTPUT))
        return " / ".join(self._stderr.read().decode(errors="replace").split("\n")[-4:]).strip(" /")
