"""The engines that evaluate a table's suite, by the name that a contract uses.

A new one is a class that keeps `Engine`'s promises and a line in `ENGINES`; `tests/contract/test_engines.py` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.expectations.expectation import Expectation

    from prefect_stagegate.validations.records import Place, TableJob


class Engine(Protocol):
    """Gives Great Expectations the whole of a table, however many files it has."""

    def __init__(self, context: AbstractDataContext, tables: Sequence[TableJob], scratch: Path) -> None:
        """Get ready for `tables`; `scratch` is an empty folder for what doesn't fit into memory."""

    def batch(self, table: TableJob) -> Batch:
        """All rows of all of `table.files` as one batch, with the data's own columns and no others.

        Called again with fewer files after some could not be read.
        """

    def locate(self, table: TableJob, expectation: Expectation) -> list[Place]:
        """The files that hold the rows that the expectation refuses, the most rows first.

        Speaks of the batch last given for `table`. Empty when the expectation judges no single rows.
        """


ENGINES = {
    "duckdb": "prefect_stagegate.validations.engine_duckdb:DuckDBEngine",
    "pandas": "prefect_stagegate.validations.engine_pandas:PandasEngine",
}
"""Where each engine stands. Loaded by name, in the worker only, for an engine loads Great Expectations."""


def load_engine(name: str) -> type[Engine]:
    """The engine of a name in `ENGINES`."""
    module, _, attribute = ENGINES[name].partition(":")
    engine: type[Engine] = getattr(import_module(module), attribute)
    return engine
