"""The process that imports Great Expectations: one job in on standard input, lines of JSON out on standard output.

    → {"scratch": "/tmp/…", "tables": [{TableJob}, …]}
    ← {"progress": "table flights: 8 expectations over 12 files"}
    ← {"table": {TableReport}}
    ← {"problems": ["table flights, expectation 3 (…): …"]}        instead of any table

It ends when its parent does: the parent keeps standard input open, and the end of it means that nobody waits any more.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from prefect_stagegate.validations.records import TableJob

Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Do the job on standard input."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, args=[job["scratch"]], daemon=True).start()
    send = _sender(_own_standard_output())
    from prefect_stagegate.validations.judge import BadSuites, judge_tables

    tables = [TableJob(**table) for table in job["tables"]]
    try:
        for report in judge_tables(tables, Path(job["scratch"]), lambda line: send({"progress": line})):
            send({"table": asdict(report)})
    except BadSuites as error:
        send({"problems": error.args[0]})


def _end_with_the_parent(scratch: str) -> None:
    sys.stdin.read()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


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
