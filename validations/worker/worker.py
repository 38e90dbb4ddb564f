"""The process that imports Great Expectations: it reads jobs from standard input and writes lines of JSON.

    → {"scratch": "/tmp/…", "tables": [{TableJob}, …], "judged": [], "lint": false, "data_docs": false,
       "rights": "", "memory": 1e9, "spill": 1e9}
    ← {"progress": "table flights: 8 expectations over 12 files"}
    ← {"table": {TableReport}}
    ← {"problems": ["table flights: expectations[2]: …"]}        instead of any table
    ← {"ended": 0}                                                 the judging process' status: the job is over

With `"data_docs": true` it also makes Great Expectations' pages, in the scratch folder; `judged` are the tables of
another process for them, each with its report. `rights` names what it may do beyond `confinement`. With
`"lint": true` it builds the suites, judges nothing, and sends empty reports.

It is two processes. The first one loads Great Expectations, which takes seconds, and then only waits: it is the guard.
For each job it forks a second one, which judges, and can open only what `confinement` lists. When the parent ends,
standard input closes: the guard then kills the second one and removes the scratch folder. It does the same when it is
terminated. With the second one it kills all that it started: Spark's Java is in its process group.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn, TextIO

from prefect_stagegate.doors import load
from prefect_stagegate.validations.data_docs import MADE
from prefect_stagegate.validations.worker.confinement import confine, end_with_parent, reserve_standard_output
from prefect_stagegate.validations.worker.process_limits import OUT_OF_MEMORY, apply, is_about_limits
from prefect_stagegate.validations.worker.worker_messages import TableJob, TableReport

Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Do the jobs on standard input, one after the other, until none came for a while. Seconds are the argument."""
    idle = float(sys.argv[1])
    # Before Great Expectations is imported: what libraries print must not mix with the results.
    send = _sender(reserve_standard_output())
    # The first job is read before the import, so that its scratch folder is known when the parent ends meanwhile.
    line = sys.stdin.readline()
    if line:
        with _watching_the_parent(json.loads(line)["scratch"]):
            _load_libraries()
    while line:
        send({"ended": _run(json.loads(line), send)})
        line = sys.stdin.readline() if select.select([0], [], [], idle)[0] else ""
    os._exit(0)  # nothing is left to do, and freeing all modules takes a while


@contextmanager
def _watching_the_parent(scratch: str) -> Iterator[None]:
    """End this process in the block when the parent ends, within a second. A timer looks, since a thread would stay."""
    parent = select.poll()
    parent.register(0, 0)  # reports nothing but a closed pipe

    def look(*_: object) -> None:
        if parent.poll(0):
            shutil.rmtree(scratch, ignore_errors=True)
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _load_libraries() -> None:
    """Import what every job needs, once. Their threads stay behind at a fork, and start again where needed."""
    # The modules stay, so searching them for cycles finds nothing: it took a fifth of the import.
    gc.disable()
    from prefect_stagegate.validations.engines.engine import load_engine
    from prefect_stagegate.validations.worker import judge

    del judge
    load_engine("duckdb")
    gc.freeze()
    gc.enable()


def _run(job: Mapping[str, Any], send: Send) -> int:
    """Judge in a new process, and return its status; negative for a signal."""
    ended, alive = os.pipe()
    guard = os.getpid()
    process = os.fork()
    if not process:
        os.close(ended)
        _judge_and_exit(job, send, guard)
    os.close(alive)
    with suppress(OSError):  # the process may be gone
        os.setpgid(process, process)  # it does the same; whoever comes first
    with _ending_both_when_terminated(process, job["scratch"]):
        # The pipe closes with the judging process, standard input with the parent.
        readable, _, _ = select.select([0, ended], [], [])
        if 0 in readable and ended not in readable:
            _end_both(process, job["scratch"])
        # A zombie keeps its group's number, so kill the group before the process is waited for.
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        _kill_group(process)
    os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@contextmanager
def _ending_both_when_terminated(process: int, scratch: str) -> Iterator[None]:
    """In the block, signals that end this process end the judging one with all that it started."""

    def end(*_: object) -> None:
        _end_both(process, scratch)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_both(process: int, scratch: str) -> NoReturn:
    """Kill the judging process with all that it started, remove its files, and end this process."""
    _kill_group(process)
    os.waitpid(process, 0)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def _kill_group(process: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def _judge_and_exit(job: Mapping[str, Any], send: Send, guard: int) -> NoReturn:
    """Judge in this process, which the guard has just forked, and end it."""
    status = 1
    try:
        _belong_to(guard)
        _judge(job, send)
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing may return into the guard's code
        if is_about_limits(f"{type(error).__name__}: {error}"):
            status = OUT_OF_MEMORY
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _belong_to(guard: int) -> None:
    """End with the guard, and leave standard input to it. Its group is all that this process will start."""
    os.setpgid(0, 0)
    # The guard may have ended before this call.
    end_with_parent()
    if os.getppid() != guard:
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _judge(job: Mapping[str, Any], send: Send) -> None:
    tables = [TableJob.from_json(table) for table in job["tables"]]
    os.environ |= {"TMPDIR": job["scratch"], "HOME": job["scratch"]}
    tempfile.tempdir = None
    rights = load(job["rights"]) if job["rights"] else None
    # Only this thread came through the fork. All that it starts from now on is confined with it.
    sandbox = confine(job["scratch"], {table.view for table in tables if table.view}, rights)
    # Java's heap has a bound of its own, and a JVM that may not have more memory ends without saying why.
    apply(None if rights else job["memory"], job["spill"])
    from prefect_stagegate.validations.worker import judge

    try:
        judged = (
            judge.lint_tables(tables)
            if job["lint"]
            else judge.judge_tables(tables, Path(job["scratch"]), lambda line: send({"progress": line}))
        )
        reports = []
        for report in judged:
            reports.append(report)
            send({"table": asdict(replace(report, sandbox=sandbox))})
        if job["data_docs"]:
            send({"progress": "writing Data Docs"})
            from prefect_stagegate.validations.worker.docs_pages import build_site

            before = [(TableJob.from_json(table), TableReport.from_json(report)) for table, report in job["judged"]]
            build_site([*before, *zip(tables, reports, strict=True)], Path(job["scratch"], MADE))
    except judge.BadSuites as error:
        send({"problems": error.args[0]})


def _sender(results: TextIO) -> Send:
    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=results, flush=True)

    return send


if __name__ == "__main__":
    main()
