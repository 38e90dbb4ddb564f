"""The process that compares rows; see `confined_process`.

→ {"scratch": "/…", "views": ["/…"], "memory": 1073741824, "spill": 1e9, "pairs": [{TablePair}, …]}
← {"tables": [{TableRowChanges}, …]}
← {"error": ["UsageError", "the key …", "Name …"]}     in place of the tables: its type, what happened, what to do
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import duckdb

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.rows.row_changes import TablePair
from prefect_stagegate.plugins.rows.row_queries import compare_rows
from prefect_stagegate.validations.queries.duck import THREADS, locked
from prefect_stagegate.validations.worker.confined_process import begin
from prefect_stagegate.validations.worker.process_limits import is_about_limits

NO_SPACE = re.compile(
    r"No space left|Disk quota|File too large|max_temp_directory_size|failed to offload", re.IGNORECASE
)
"""What DuckDB says where it can't spill."""


def main() -> None:
    """Compare the tables of the job on standard input."""
    job, answers = begin()
    print(json.dumps(_reply(job)), file=answers, flush=True)


def _reply(job: Mapping[str, Any]) -> dict[str, Any]:
    config = {
        "memory_limit": f"{job['memory']}B",
        "temp_directory": job["scratch"],
        "max_temp_directory_size": f"{job['spill']}B",
        "threads": THREADS,
        "preserve_insertion_order": False,
    }
    tables = []
    for pair in map(TablePair.from_json, job["pairs"]):
        try:
            # A database a table: what one holds in memory is gone for the next.
            with locked(job["views"], **config) as connection:
                tables.append(asdict(compare_rows(connection, pair)))
        except UsageError as error:
            return {"error": ("UsageError", error.message, error.hint)}
        except (duckdb.Error, MemoryError) as error:
            return {"error": _problem(error, pair)}
    return {"tables": tables}


def _problem(error: Exception, pair: TablePair) -> Sequence[str]:
    """The type, the message and the hint of the error that the comparison ends with."""
    text = f"{type(error).__name__}: {error}"
    if NO_SPACE.search(text):
        hint = "Free some space on the cache's volume, or let it take more by STAGEGATE_VALIDATION_SPILL."
        return "NoSpace", f"No space left to compare the rows of table {pair.table}", hint
    if is_about_limits(text):
        hint = "Let it take more by STAGEGATE_VALIDATION_MEMORY, or compare fewer files."
        return "ValidationError", f"The comparison of table {pair.table} needs more memory than it may take", hint
    # DuckDB's message may quote a value.
    reason = type(error).__name__ if pair.personal else (str(error).splitlines() or [type(error).__name__])[0]
    hint = "Run `stagegate validate` on both versions: it names the files that can't be read."
    return "ValidationError", f"The rows of table {pair.table} can't be compared: {reason}", hint


if __name__ == "__main__":
    main()
