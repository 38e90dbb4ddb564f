"""The engines that evaluate a table's suite, by the name that a contract uses.

To add one, write a class that implements `SuiteEngine` and declare it in a plugin; `tests/contract/test_engines.py`
then tests it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prefect_stagegate.doors import Engine, declared, load

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.expectations.expectation import Expectation

    from prefect_stagegate.validations.engines.by_file import FilesOfTable
    from prefect_stagegate.validations.worker.worker_messages import RefusedRows, TableJob


class SuiteEngine(Protocol):
    """Gives Great Expectations all files of a table as one batch."""

    leaves: Collection[str] = ()
    """The types of expectations that DuckDB evaluates in its stead."""

    def __init__(self, context: AbstractDataContext, tables: Sequence[TableJob], scratch: Path) -> None:
        """Prepare for `tables`; `scratch` is an empty folder for data that don't fit into memory."""

    def batch(self, table: TableJob, columns: Collection[str] | None = None) -> Batch:
        """All rows of all of `table.files` as one batch, with the data's own columns and no others.

        The caller calls it again with fewer files when some could not be read.

        Args:
            table: The table.
            columns: The columns that the suite names; None when it may look at all. An engine may leave out others.
        """

    def rows(self, table: TableJob) -> dict[str, int]:
        """The rows of each file in the batch that `batch` last returned, by its path; those without any may lack."""

    def counted(self, table: TableJob) -> FilesOfTable | None:  # noqa: ARG002 - for engines that keep some
        """The values of single files of the batch that `batch` last returned; None where the engine keeps none."""
        return None

    def locate(self, table: TableJob, expectation: Expectation) -> list[RefusedRows]:
        """The files that hold the rows that the expectation refuses, the most rows first.

        It looks at the batch that `batch` last returned for `table`. Empty when the expectation does not judge rows
        one by one. Whatever it raises means that the files are not known.
        """


_OWN = {
    "duckdb": Engine("prefect_stagegate.validations.engines.duckdb_engine:DuckDBEngine"),
    "pandas": Engine("prefect_stagegate.validations.engines.pandas_engine:PandasEngine"),
}
ENGINES = _OWN | declared("engines") | _OWN
"""The core's own come first and keep their names. Only the worker imports what they name: Great Expectations, too."""


def load_engine(name: str) -> type[SuiteEngine]:
    """The engine of a name in `ENGINES`."""
    engine: type[SuiteEngine] = load(ENGINES[name].engine)
    return engine
