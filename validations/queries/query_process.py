"""The processes that run queries over a version's files for `duck.Queries`, one line of JSON each.

→ {"scratch": "/…", "views": ["/…"], "memory": 1073741824, "spill": 1e9}   what it may take comes first
→ {"statement": "SELECT …"}                                              ← {"answer": [[…], …]}
→ {"table": {TableFiles}, "filename": "", "as_text": false, "only": []}   ← {"answer": "SELECT …"}
← {"error": ["IOException", "…"]}     in place of an answer: DuckDB's type and message

They are three. The server imports the libraries and opens no file of a version. For each block of queries it gets two
sockets and a file, and forks a keeper, which forks the reader. The reader answers on the first socket, and prints to
the file. When the second socket closes, the keeper kills the reader with its process group.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from contextlib import suppress
from typing import Any, NoReturn

import duckdb

from prefect_stagegate.validations.queries.duck import TABLE, THREADS, locked
from prefect_stagegate.validations.queries.relations import relation_of
from prefect_stagegate.validations.worker.confinement import confine, reserve_standard_output, run_in_group
from prefect_stagegate.validations.worker.process_limits import apply

BESIDE = 2 << 30
"""Bytes that the process may take beside those of DuckDB: Arrow's batches, libraries, what is on its way."""
IDLE = 60.0
"""Seconds without a request after which the server ends."""


def main() -> None:
    """Fork for each request, until the parent ends or sends none for a while."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave no zombies
    control = socket.socket(fileno=0)
    control.settimeout(IDLE)
    with suppress(TimeoutError):
        while descriptors := socket.recv_fds(control, 4, 3)[1]:
            if not os.fork():
                _keep(*descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _keep(channel: int, life: int, stderr: int) -> NoReturn:
    """Have a reader answer, until the parent ends or closes `life`."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Nothing else stays open: neither the parent nor the server would notice the other's end.
        for descriptor, place in ((channel, 0), (channel, 1), (stderr, 2), (life, 3)):
            os.dup2(descriptor, place)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        os.write(3, b"1")
        run_in_group(answer, 3)
    finally:
        os._exit(0)


def answer() -> None:
    """Answer until the input ends."""
    requests = os.fdopen(0, "rb")
    job = json.loads(requests.readline())
    answers = reserve_standard_output()
    os.environ |= {"TMPDIR": job["scratch"], "HOME": job["scratch"]}
    tempfile.tempdir = None
    confine(job["scratch"], job["views"])
    apply(job["memory"] + BESIDE, job["spill"])
    config = {
        "memory_limit": f"{job['memory']}B",
        "temp_directory": job["scratch"],
        "max_temp_directory_size": f"{job['spill']}B",
        "threads": THREADS,
        "preserve_insertion_order": False,
    }
    with locked(job["views"], **config) as connection:
        for line in requests:
            # Decimals as floats.
            print(json.dumps(_reply(connection, json.loads(line)), default=float), file=answers, flush=True)


def _reply(connection: duckdb.DuckDBPyConnection, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if "statement" in request:
            return {"answer": connection.execute(request["statement"]).fetchall()}
        table = TABLE.validate_python(request.pop("table"))
        return {"answer": relation_of(connection, table, **request)}
    except (duckdb.Error, MemoryError) as error:
        return {"error": (type(error).__name__, str(error))}


if __name__ == "__main__":
    main()
