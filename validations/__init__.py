"""Contracts: what a dataset promises about its files and tables, and whether a version keeps it.

    validate ─┬ probes      every file that the contract names is opened, one by one
              ├ schema      every file of a table has the declared columns
              └ worker      one child process runs Great Expectations over the files of each table that passed

Great Expectations takes seconds to import, so only the worker loads it, and only when a table has a suite.

    files/      which files a contract names, and the probes that open each of them
    queries/    DuckDB's measures of rows: balance, drift, duplicates, personal data, freshness
    profiling/  the profile of a table: figures of each column by file, merged, and the suite that they suggest
    engines/    what evaluates a suite: DuckDB, with values kept by file, and pandas
    worker/     the child process: what it may open, the suite that it builds, the results and pages that it makes
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_stagegate.validations.queries.newest import newest_time as newest_time
    from prefect_stagegate.validations.validation import lint as lint
    from prefect_stagegate.validations.validation import validate as validate

__all__ = ["lint", "newest_time", "validate"]


def __getattr__(name: str) -> Any:
    # Late: the processes that probe files start within a tenth of the time without the query engines.
    if name in __all__:
        module = "queries.newest" if name == "newest_time" else "validation"
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
