"""How many rows share their value with another one, by a GROUP BY.

Great Expectations counts them by a window over the whole table, which sorts it: 23.7 s for 100 million numbers on two
cores, and 8 s by groups. The meaning is the same: all rows of a value that occurs twice or more, nulls left out.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from great_expectations.core.metric_function_types import MetricFunctionTypes
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.metrics.column_map_metrics.column_values_unique import ColumnValuesUnique
from great_expectations.expectations.registry import register_metric

METRIC = "column_values.unique"


def count_by_groups(engine: type[SqlAlchemyExecutionEngine]) -> None:
    """Make an engine count repeated values by groups; other engines go on as before."""
    register_metric(
        metric_name=f"{METRIC}.unexpected_count",
        metric_domain_keys=ColumnValuesUnique.condition_domain_keys,
        metric_value_keys=ColumnValuesUnique.condition_value_keys,
        execution_engine=engine,
        metric_class=ColumnValuesUnique,
        metric_provider=_repeated_rows,
        metric_fn_type=MetricFunctionTypes.VALUE,
    )


def is_repeated(column: str, rows: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether a value occurs twice or more among all rows, which are queried apart."""
    value: sa.ColumnClause[Any] = sa.column(column)
    groups = sa.select(value).select_from(rows.alias()).where(value.is_not(None)).group_by(value)
    return value.in_(groups.having(sa.func.count() > 1))


def _repeated_rows(
    cls: type[ColumnValuesUnique],  # noqa: ARG001 - what Great Expectations calls with
    execution_engine: SqlAlchemyExecutionEngine,
    metric_domain_kwargs: dict[str, Any],
    **_: Any,
) -> int:
    column: sa.ColumnClause[Any] = sa.column(metric_domain_kwargs["column"])
    rows = execution_engine.get_domain_records(domain_kwargs=metric_domain_kwargs)
    source = rows.subquery() if isinstance(rows, sa.Select) else rows
    count = sa.func.count().label("repeated")
    groups = sa.select(count).select_from(source).where(column.is_not(None)).group_by(column).having(count > 1).alias()
    total = execution_engine.execute_query(sa.select(sa.func.sum(groups.c.repeated))).scalar()
    return int(total or 0)
