"""The process that imports Great Expectations: it reads one job from standard input and writes lines of JSON.

    → {"scratch": "/tmp/…", "tables": [{TableJob}, …], "lint": false}
    ← {"progress": "table flights: 8 expectations over 12 files"}
    ← {"table": {TableReport}}
    ← {"problems": ["table flights, expectation 3 (…): …"]}        instead of any table

With `"lint": true` it builds the suites, judges nothing, and sends empty reports.

It is two processes. The second one judges, and can open only what `confinement` lists. The first one is its guard and
waits. When the parent ends or terminates it, the guard kills the second one and removes the scratch folder. With the
second one it kills all that it started: Spark's Java is in its process group.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn, TextIO

from prefect_stagegate.validations.engines.engine import SPARK
from prefect_stagegate.validations.records import TableJob
from prefect_stagegate.validations.worker.confinement import confine

Send = Callable[[dict[str, Any]], None]

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Do the job on standard input."""
    job = json.loads(sys.stdin.readline())
    _leave_a_guard(job["scratch"])
    tables = [TableJob.from_json(table) for table in job["tables"]]
    # Confine the process before it imports anything that could start threads: those would stay unconfined.
    spark = any(table.engine == SPARK for table in tables)
    sandbox = confine(job["scratch"], {table.view for table in tables if table.view}, spark=spark)
    # Before Great Expectations is imported: what libraries print must not mix with the results.
    send = _sender(_reserve_standard_output())
    from prefect_stagegate.validations.worker import judge

    try:
        judged = (
            judge.lint_tables(tables)
            if job["lint"]
            else judge.judge_tables(tables, Path(job["scratch"]), lambda line: send({"progress": line}))
        )
        for report in judged:
            send({"table": asdict(replace(report, sandbox=sandbox))})
    except judge.BadSuites as error:
        send({"problems": error.args[0]})


def _leave_a_guard(scratch: str) -> None:
    """Go on in a new process; the old one stays behind as its guard."""
    guard = os.getpid()
    ended, alive = os.pipe()
    if judge := os.fork():
        os.close(alive)
        _guard(judge, ended, scratch)
    os.close(ended)
    os.setpgid(0, 0)
    # Let the kernel kill the judge when its guard is killed. The guard may have ended before this call.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:
        os._exit(1)
    # Standard input belongs to the guard from now on.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


class _Terminated(Exception):
    """The parent terminates the guard."""


def _raise(*_: object) -> NoReturn:
    raise _Terminated


def _guard(judge: int, ended: int, scratch: str) -> NoReturn:
    """Wait for the judge and end as it did. When the parent ends first, kill the judge and remove its files.

    Args:
        judge: The id of the process that judges.
        ended: The reading end of a pipe, whose other end closes with the judge.
        scratch: The folder with the judge's files.
    """
    with suppress(OSError):  # the judge may be gone
        os.setpgid(judge, judge)  # it does the same; whoever comes first
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _raise)
    try:
        readable, _, _ = select.select([0, ended], [], [])
    except _Terminated:
        readable = [0]
    # A zombie keeps its group's number, so kill the group before the judge is waited for.
    if 0 not in readable:
        os.waitid(os.P_PID, judge, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError):
        os.killpg(judge, signal.SIGKILL)
    if 0 in readable:
        os.waitpid(judge, 0)
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(judge, 0)[1])
    # A judge that a signal killed: die by the same signal, so that the parent sees the same status.
    if code < 0:
        with suppress(OSError):  # SIGKILL has no handler to take away
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _reserve_standard_output() -> TextIO:
    """Reserve standard output for results: prints of libraries go to standard error from now on."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


def _sender(results: TextIO) -> Send:
    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=results, flush=True)

    return send


if __name__ == "__main__":
    main()
