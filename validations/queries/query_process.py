"""The process that runs queries over a version's files for `duck.Queries`, one line of JSON each.

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
from prefect_stagegate.validations.worker.confined_process import begin


def main() -> None:
    """Answer until the input ends."""
    job, answers = begin()
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
