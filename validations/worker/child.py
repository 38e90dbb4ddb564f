"""The parent's side of the worker: start it, read its messages, and remove the process and its files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from prefect_stagegate.errors import SpecError, ValidationError
from prefect_stagegate.validations.engines.engine import SPARK
from prefect_stagegate.validations.records import TableJob, TableReport
from prefect_stagegate.validations.worker.confinement import environment

COMMAND = (sys.executable, "-P", "-m", "prefect_stagegate.validations.worker.worker")
"""`-P`: a module in the current folder must not shadow a library."""
LAST_SECONDS = 5.0
"""Seconds that a worker may take to end by itself after its last message."""
STDERR_LINES = 5
"""Last lines of the worker's standard error that an error quotes."""


def judge_in_child(
    tables: Sequence[TableJob],
    *,
    dataset: str,
    timeout: float,
    progress: Callable[[str], None],
    lint: bool = False,
) -> dict[str, TableReport]:
    """Judge tables in one new process.

    Args:
        tables: What to judge; at least one.
        dataset: For errors.
        timeout: Seconds after which the process is killed.
        progress: Called with lines for people.
        lint: Only build the suites; then the reports are empty, and no file is looked at.

    Raises:
        SpecError: A suite can't be used; it lists every problem of every suite.
        ValidationError: The process died or ran out of time.
    """
    with tempfile.TemporaryDirectory(prefix="stagegate-") as scratch, tempfile.TemporaryFile() as stderr:
        job = {"scratch": scratch, "tables": [asdict(table) for table in tables], "lint": lint}
        with _Child(job, stderr, timeout) as child:
            reports = _read(child, dataset, progress)
        # The worker sends a table's report when it is judged: fewer reports mean that it died.
        if set(reports) != {table.name for table in tables}:
            raise _died(child, stderr, dataset)
    return reports


class _Child:
    """The running worker. Leaving the block ends it in every case."""

    def __init__(self, job: dict[str, Any], stderr: IO[bytes], timeout: float) -> None:
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(os.environ, job["scratch"], spark=any(t["engine"] == SPARK for t in job["tables"])),
        )
        self.job = json.dumps(job).encode() + b"\n"
        self.seconds = timeout
        self.timed_out = False
        self._timer = threading.Timer(timeout, self._time_out)

    def _time_out(self) -> None:
        self.timed_out = True
        # The guard ends all that the judging process started. It may not be there yet, or not answer.
        self.process.terminate()
        self._wait()
        self.process.kill()

    def __enter__(self) -> _Child:
        # The timer starts before the job is written: a worker that never reads it must be killed, too.
        self._timer.start()
        assert self.process.stdin is not None  # noqa: S101 - asked for above
        with suppress(BrokenPipeError):
            # Standard input stays open: the worker takes its end for the end of this process.
            self.process.stdin.write(self.job)
            self.process.stdin.flush()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        # After all reports, let the worker end by itself.
        if error is None:
            self._wait()
        # Closing standard input makes the worker end its judging process and wait for it, so that nobody uses the
        # scratch folder any more when it is removed.
        self._close(self.process.stdin)
        self._wait()
        self.process.kill()
        self._close(self.process.stdout)
        self.process.wait()

    def _wait(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_SECONDS)

    def _close(self, pipe: IO[bytes] | None) -> None:
        with suppress(BrokenPipeError):
            if pipe:
                pipe.close()


def _read(child: _Child, dataset: str, progress: Callable[[str], None]) -> dict[str, TableReport]:
    reports: dict[str, TableReport] = {}
    assert child.process.stdout is not None  # noqa: S101 - asked for above
    for line in child.process.stdout:
        message = json.loads(line)
        if "progress" in message:
            progress(message["progress"])
        elif "problems" in message:
            raise SpecError(f"the contract of {dataset}", message["problems"])
        else:
            report = TableReport.from_json(message["table"])
            reports[report.name] = report
    return reports


def _died(child: _Child, stderr: IO[bytes], dataset: str) -> ValidationError:
    if child.timed_out:
        return ValidationError(
            f"The tables were not judged within {child.seconds:g} s",
            hint="Name fewer files in the contract, or stage smaller versions.",
            dataset=dataset,
        )
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").strip().splitlines()[-STDERR_LINES:]
    said = ("; its last output:\n" + "\n".join(f"  {line}" for line in lines)) if lines else ""
    return ValidationError(
        f"The process that judges the tables ended with status {child.process.returncode}{said}\n",
        hint="Status -9 is most often the system's out-of-memory killer."
        if child.process.returncode == -signal.SIGKILL
        else "It says nothing about the data: look at its last output.",
        dataset=dataset,
    )
