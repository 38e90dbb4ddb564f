"""The process that imports Great Expectations: one job in on standard input, lines of JSON out on standard output.

    → {"scratch": "/tmp/…", "tables": [{TableJob}, …]}
    ← {"progress": "table flights: 8 expectations over 12 files"}
    ← {"table": {TableReport}}
    ← {"problems": ["table flights, expectation 3 (…): …"]}        instead of any table

It is two processes. The first one waits: it ends the second with the parent, whose end closes standard input, and
removes the scratch folder then. The second one judges, and can open nothing but what `confinement` lists.
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

from prefect_stagegate.validations.confinement import confine
from prefect_stagegate.validations.records import TableJob

Send = Callable[[dict[str, Any]], None]

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Do the job on standard input."""
    job = json.loads(sys.stdin.readline())
    _leave_a_guard(job["scratch"])
    tables = [TableJob(**table) for table in job["tables"]]
    sandbox = confine(job["scratch"], {table.view for table in tables})
    send = _sender(_own_standard_output())
    from prefect_stagegate.validations.judge import BadSuites, judge_tables

    try:
        for report in judge_tables(tables, Path(job["scratch"]), lambda line: send({"progress": line})):
            send({"table": asdict(replace(report, sandbox=sandbox))})
    except BadSuites as error:
        send({"problems": error.args[0]})


def _leave_a_guard(scratch: str) -> None:
    """Go on in a new process, and leave this one behind to wait for the end of it and of the parent."""
    guard = os.getpid()
    ended, alive = os.pipe()
    if judge := os.fork():
        os.close(alive)
        _guard(judge, ended, scratch)
    os.close(ended)
    # The judge ends with its guard, whoever kills that.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _guard(judge: int, ended: int, scratch: str) -> NoReturn:
    """Wait for the judge and end as it did; when the parent is gone, end it and remove what it leaves.

    Args:
        judge: The process that judges.
        ended: The reading end of a pipe, whose other end closes with the judge.
        scratch: Where the judge leaves files.
    """
    readable, _, _ = select.select([0, ended], [], [])
    if 0 in readable:
        os.kill(judge, signal.SIGKILL)
        os.waitpid(judge, 0)
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(judge, 0)[1])
    if code < 0:
        with suppress(OSError):  # SIGKILL has no handler to take away
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _own_standard_output() -> TextIO:
    """Keep standard output for the results: what libraries print goes to standard error."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


def _sender(results: TextIO) -> Send:
    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=results, flush=True)

    return send


if __name__ == "__main__":
    main()
