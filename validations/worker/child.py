"""The parent's side of the worker: start it, send it jobs, read its messages, and end it.

A worker whose job ended stays for the next validation of this process, since Great Expectations takes seconds to load.
It ends with this process, or when it had nothing to do for a while.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from prefect_stagegate.doors import load
from prefect_stagegate.errors import SpecError, UsageError, WorkerCrashed
from prefect_stagegate.model.measures import NO_VALUES
from prefect_stagegate.spec.csv_dialect import CsvSpec
from prefect_stagegate.units import format_size
from prefect_stagegate.validations.data_docs import publish
from prefect_stagegate.validations.engines.engine import ENGINES
from prefect_stagegate.validations.worker.confinement import environment
from prefect_stagegate.validations.worker.process_limits import OUT_OF_MEMORY, ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import TableJob, TableReport

COMMAND = (sys.executable, "-P", "-m", "prefect_stagegate.validations.worker.worker")
"""`-P`: a module in the current folder must not shadow a library."""
IDLE_SECONDS = 300
"""Seconds after which a worker without a job ends by itself."""
LAST_SECONDS = 5.0
"""Seconds that a worker may take to end by itself."""
STDERR_BYTES = 16_384
"""The last bytes of the worker's standard error that are logged."""
LINE_LENGTH = 200
"""The most characters of its last line that an error quotes."""

log = logging.getLogger(__name__)


def judge_in_child(
    tables: Sequence[TableJob],
    *,
    dataset: str,
    limits: ValidationLimits,
    progress: Callable[[str], None],
    lint: bool = False,
    data_docs: Path | None = None,
    judged: Sequence[tuple[TableJob, TableReport]] = (),
) -> dict[str, TableReport]:
    """Judge tables in one process beside this one.

    Args:
        tables: What to judge; at least one.
        dataset: For errors.
        limits: What the process may take. It is killed when its time is over.
        progress: Called with lines for people.
        lint: Only build the suites; then the reports are empty, and no file is looked at.
        data_docs: A new or empty folder for Great Expectations' pages of the results; None for no pages.
        judged: Tables that another process judged, for the pages.

    Raises:
        SpecError: A suite can't be used; it lists every problem of every suite.
        WorkerCrashed: The process died, or ran out of time or memory.
        UsageError: No scratch folder can be made, or the folder `data_docs` can't be written.
    """
    rights = "" if lint else next(filter(None, (ENGINES[table.engine].rights for table in tables)), "")
    with (
        _scratch_folder(limits) as scratch,
        _borrowed(scratch, rights) as worker,
        _Job(worker, limits, dataset, progress) as job,
    ):
        record = {"scratch": scratch, "tables": [asdict(table) for table in tables], "lint": lint, "rights": rights}
        pages = {"data_docs": data_docs is not None, "judged": [_for_pages(*pair) for pair in judged]}
        reports = job.run({**record, **pages})
        if data_docs is not None:
            publish(Path(scratch), data_docs)
    return reports


def _for_pages(table: TableJob, report: TableReport) -> tuple[dict[str, Any], dict[str, Any]]:
    """A judged table as JSON values, without what only judging needs."""
    shown = replace(table, files=(), digests={}, known=NO_VALUES, rows={})
    return asdict(shown), asdict(replace(report, values=NO_VALUES))


def _scratch_folder(limits: ValidationLimits) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="stagegate-", dir=limits.scratch)
    except OSError as error:
        folder = limits.scratch or tempfile.gettempdir()
        raise UsageError(
            f"No scratch folder can be made in {folder}: {error.strerror}",
            hint=f"Make it writable (mkdir -p {folder}), or name another one by STAGEGATE_VALIDATION_SCRATCH.",
        ) from error


class WorkerProcess:
    """A running worker, which does one job at a time."""

    def __init__(self, scratch: str, rights: str = "") -> None:
        self.kind = _kind()
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open as long as the worker runs
        self.used = time.monotonic()
        self.process = subprocess.Popen(
            [*COMMAND, str(IDLE_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env=environment(os.environ, scratch, load(rights) if rights else None),
        )

    def can_work(self) -> bool:
        """Whether it can take a job: it runs, won't end soon, and would be started alike now."""
        is_fresh = time.monotonic() - self.used < IDLE_SECONDS / 2
        return is_fresh and self.kind == _kind() and self.process.poll() is None

    def end(self) -> None:
        """End it in every case."""
        # Closing standard input makes the worker end its judging process and wait for it, so that nobody uses the
        # scratch folder any more when it is removed.
        self._close(self.process.stdin)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_SECONDS)
        self.process.kill()
        self._close(self.process.stdout)
        self.process.wait()
        self.stderr.close()

    def _close(self, pipe: IO[bytes] | None) -> None:
        with suppress(BrokenPipeError):
            if pipe:
                pipe.close()


def _kind() -> tuple[object, ...]:
    """What a worker is started with; another environment needs another worker."""
    return COMMAND, environment(os.environ, "")


_idle: list[WorkerProcess] = []
_lock = threading.Lock()


@contextmanager
def _borrowed(scratch: str, rights: str) -> Iterator[WorkerProcess]:
    """A worker for this block alone. Afterwards one is kept. After an error it is ended, unless suites have mistakes.

    One with rights is new, and not kept: no job of other tables may be forked from a process that holds a secret.
    """
    worker = (None if rights else _take()) or WorkerProcess(scratch, rights)
    can_be_kept = False
    try:
        yield worker
        can_be_kept = not rights
    except SpecError:  # which it has reported: it waits for the next job
        can_be_kept = not rights
        raise
    finally:
        worker.used = time.monotonic()
        with _lock:
            is_kept = can_be_kept and not _idle
            if is_kept:
                _idle.append(worker)
        if not is_kept:
            worker.end()


def _take() -> WorkerProcess | None:
    with _lock:
        worker = _idle.pop() if _idle else None
    if worker is None or worker.can_work():
        return worker
    worker.end()
    return None


def end_idle_workers() -> None:
    """End the worker that is kept for the next validation of this process."""
    while _idle:
        _idle.pop().end()


def _forget_workers() -> None:
    """Leave the parent's worker to the parent, and close the copies of its pipes."""
    global _lock  # noqa: PLW0603 - another thread of the parent may hold the old one
    _lock = threading.Lock()
    _idle.clear()


atexit.register(end_idle_workers)
os.register_at_fork(after_in_child=_forget_workers)


@dataclass
class _Job:
    """One job of a worker. The time-out, which starts with the block, kills the worker."""

    worker: WorkerProcess
    limits: ValidationLimits
    dataset: str
    progress: Callable[[str], None]
    timed_out: bool = False
    quoted: int = 0
    """Where this job's part of the worker's standard error begins."""
    reports: dict[str, TableReport] = field(default_factory=dict)

    def __enter__(self) -> _Job:
        self.quoted = os.fstat(self.worker.stderr.fileno()).st_size
        self._timer = threading.Timer(self.limits.seconds, self._time_out)
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _time_out(self) -> None:
        self.timed_out = True
        # The guard ends all that the judging process started. It may not be there yet, or not answer.
        self.worker.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.worker.process.wait(LAST_SECONDS)
        self.worker.process.kill()

    def run(self, job: Mapping[str, Any]) -> dict[str, TableReport]:
        """Send the job and read its reports; raises as `judge_in_child`."""
        stdin = self.worker.process.stdin
        assert stdin is not None  # noqa: S101 - asked for above
        bounds = {"memory": self.limits.memory, "spill": self.limits.spill}
        line = json.dumps({**job, **bounds}, default=CsvSpec.model_dump).encode() + b"\n"
        with suppress(BrokenPipeError):
            # Standard input stays open: the worker takes its end for the end of this process.
            stdin.write(line)
            stdin.flush()
        status = self._read()
        # The worker sends a table's report when it is judged: fewer reports mean that its process died.
        if status != 0 or set(self.reports) != {table["name"] for table in job["tables"]}:
            raise self._died(status)
        return self.reports

    def _read(self) -> int | None:
        """Read messages to the job's end, and return the judging process' status; None when the worker died."""
        assert self.worker.process.stdout is not None  # noqa: S101 - asked for above
        problems: list[str] = []
        for line in self.worker.process.stdout:
            message = json.loads(line)
            if "progress" in message:
                self.progress(message["progress"])
            elif "problems" in message:
                problems = message["problems"]
            elif "ended" in message:
                if problems:
                    raise SpecError(f"the contract of {self.dataset}", problems)
                return int(message["ended"])
            else:
                report = TableReport.from_json(message["table"])
                self.reports[report.name] = report
        return None

    def _died(self, status: int | None) -> WorkerCrashed:
        if status is None:
            with suppress(subprocess.TimeoutExpired):
                self.worker.process.wait(LAST_SECONDS)
            status = self.worker.process.poll()
        output = self._last_output()
        # The traceback is for whoever debugs the worker; people who wait for a gate need its last line.
        log.debug("The last output of the process that judges the tables of %s:\n%s", self.dataset, output)
        what, hint = self._reason(status, output)
        last_line = output.splitlines()[-1][:LINE_LENGTH] if output and not self.timed_out else ""
        text = f"{what}: {last_line.rstrip('.')}" if last_line else what
        return WorkerCrashed(text, hint=hint, dataset=self.dataset)

    def _reason(self, status: int | None, output: str) -> tuple[str, str]:
        """What happened to the judging process, and what to do."""
        if self.timed_out:
            hint = "Raise STAGEGATE_VALIDATION_TIMEOUT, name fewer files in the contract, or stage smaller versions."
            return f"The tables were not judged within {self.limits.seconds:g} s", hint
        memory = format_size(self.limits.memory)
        # glibc ends a process that has no memory for a thread by itself.
        if status == OUT_OF_MEMORY or "cannot allocate memory" in output:
            hint = (
                "Raise STAGEGATE_VALIDATION_MEMORY, and the container's memory where that is less, or judge the table "
                "with `engine: duckdb`, which spills."
            )
            return f"The process that judges the tables needed more than its {memory} of memory", hint
        if status == -signal.SIGKILL:
            hint = (
                f"Most often that is the system's out-of-memory killer: lower STAGEGATE_VALIDATION_MEMORY ({memory})."
            )
            return "The process that judges the tables was killed (SIGKILL)", hint
        hint = "Run the command again with --debug for the whole traceback; the crash says nothing about the data."
        kind = signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"
        return f"The process that judges the tables crashed with {kind}", hint

    def _last_output(self) -> str:
        descriptor = self.worker.stderr.fileno()
        start = max(self.quoted, os.fstat(descriptor).st_size - STDERR_BYTES)
        return os.pread(descriptor, STDERR_BYTES, start).decode(errors="replace").strip()
