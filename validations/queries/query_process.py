"""The process that runs queries over a version's files for `duck.Queries`, one line of JSON each.

→ {"scratch": "/…", "views": ["/…"], "memory": 1073741824, "spill": 1e9}   what it may take comes first
→ {"statement": "SELECT …"}                                              ← {"answer": [[…], …]}
→ {"table": {TableFiles}, "filename": "", "as_text": false, "only": []}   ← {"answer": "SELECT …"}
← {"error": ["IOException", "…"]}     in place of an answer: DuckDB's type and message
"""

from __future__ import annotations

import json
import sys
from typing import Any

import duckdb

from prefect_stagegate.validations.queries.duck import TABLE, THREADS, locked
from prefect_stagegate.validations.queries.relations import relation_of
from prefect_stagegate.validations.worker.confinement import confine, end_with_parent, reserve_standard_output
from prefect_stagegate.validations.worker.process_limits import apply

BESIDE = 2 << 30
"""Bytes that the process may take beside those of DuckDB: Arrow's batches, libraries, what is on its way."""


def main() -> None:
    """Answer until the input ends."""
    end_with_parent()
    job = json.loads(sys.stdin.buffer.readline())
    answers = reserve_standard_output()
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
        for line in sys.stdin.buffer:
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
