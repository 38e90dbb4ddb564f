"""Which other engine evaluates an expectation that a table's own engine does not know.

SQL of a suite is DuckDB's, whichever engine the table has: Spark's can call Java, and pandas has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from great_expectations.expectations.core.expect_table_row_count_to_be_between import ExpectTableRowCountToBeBetween
from great_expectations.expectations.core.expect_table_row_count_to_equal import ExpectTableRowCountToEqual
from great_expectations.expectations.expectation import (
    ColumnAggregateExpectation,
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    Expectation,
    MulticolumnMapExpectation,
)

from prefect_stagegate.spec.parameters import QUERIES
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.worker.judgements import columns_of
from prefect_stagegate.validations.worker.worker_messages import TableJob

OTHERS = ("duckdb", "pandas")
"""The engines to try for what another does not know, in this order."""
MOST_VALUES = 20_000_000
"""Values that pandas may hold for expectations of another engine's table: rows times columns."""

_OF_COLUMNS = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation, ColumnAggregateExpectation)
_OF_ROWS = (ExpectTableRowCountToBeBetween, ExpectTableRowCountToEqual)


def needs_duckdb(engine: str, expectation: Expectation) -> bool:
    """Whether an expectation has a query, which any engine leaves to DuckDB."""
    return engine != "duckdb" and any(expectation.configuration.kwargs.get(name) for name in QUERIES)


def needed_columns(expectations: Sequence[Expectation]) -> set[str] | None:
    """The columns that these expectations look at; None when one of them may look at any."""
    columns: set[str] = set()
    for expectation in expectations:
        arguments = expectation.configuration.kwargs
        condition = arguments.get("row_condition")
        if not isinstance(expectation, _OF_COLUMNS + _OF_ROWS) or "result_format" in arguments:
            return None
        # A condition in text names its columns in a language of its own.
        if isinstance(condition, str) or "pass_through" in str(condition):
            return None
        columns.update(columns_of(expectation), _columns_in(condition))
    return columns


def _columns_in(condition: Any) -> Iterator[str]:
    """The columns that a condition of Great Expectations compares."""
    values = condition.dict() if hasattr(condition, "dict") else condition
    if isinstance(values, Mapping):
        column = values.get("column")
        if isinstance(column, Mapping):
            yield str(column.get("name"))
        yield from (name for part in values.values() for name in _columns_in(part))
    elif isinstance(values, list | tuple):
        yield from (name for part in values for name in _columns_in(part))


def refusal(engine: str, table: TableJob, expectation: Expectation) -> str:
    """Why an engine can't take an expectation of a table that is not its own; empty when it can."""
    if engine != "pandas":
        return ""
    needed = needed_columns([expectation])
    values = sum(table.rows.values()) * (len(table.columns) if needed is None else len(needed))
    if values <= MOST_VALUES:
        return ""
    return f"pandas knows it, and would hold {count_text(values, 'value')}, more than {MOST_VALUES:,}"
