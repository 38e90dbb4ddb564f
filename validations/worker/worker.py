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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from prefect_stagegate.doors import load
from prefect_stagegate.validations.data_docs import MADE
from prefect_stagegate.validations.worker.confinement import confine, reserve_standard_output, run_in_group
from prefect_stagegate.validations.worker.process_limits import apply
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
        job = json.loads(line)
        status = run_in_group(partial(_judge, job, send), 0)
        if status is None:
            shutil.rmtree(job["scratch"], ignore_errors=True)
            os._exit(1)
        send({"ended": status})
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
