"""Metrics of the standard's library as expectations.

A metric that an expectation states exactly becomes that expectation, whose counts are kept by file. Every other figure
is counted by a query, which returns a row when the figure breaks the rule. Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_stagegate.patterns import regex_problem
from prefect_stagegate.plugins.exchange.odcs.odcs_columns import Expectation, NoCounterpart
from prefect_stagegate.plugins.exchange.odcs.operators import Operation, operation_of, sql_value
from prefect_stagegate.quoting import identifier, literal
from prefect_stagegate.spec.yamltree import Loc

if TYPE_CHECKING:
    from open_data_contract_standard.model import DataQuality

NO_OPERATOR = "the rule has no operator, such as `mustBe: 0`"
QUERY = "unexpected_rows_expectation"
"""The expectation that a query returns no row."""
BATCH = "{batch}"
"""What Great Expectations replaces by the table."""

Outcome = Expectation | NoCounterpart


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rule is about."""

    column: str
    """The column's name in the data; empty for the table."""
    columns: Mapping[str, str]
    """The names in the data of the table's columns, by their names in the contract."""


def metric_expectation(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:
    """The expectation that states a rule of the library."""
    operation = operation_of(rule)
    if operation is None:
        return NoCounterpart(loc, NO_OPERATOR)
    if rule.unit not in (None, "rows", "percent"):
        return NoCounterpart((*loc, "unit"), f"{rule.unit!r} is neither rows nor percent")
    metric = rule.metric or ""
    if metric == "rowCount":
        return _row_count(operation)
    if metric != "duplicateValues" and not subject.column:
        return NoCounterpart(loc, f"{metric} is a metric of a property, and this rule is the table's")
    return _METRICS[metric](rule, loc, subject, operation)


def _row_count(operation: Operation) -> Expectation:
    if limits := operation.whole_limits():
        return {"type": "expect_table_row_count_to_be_between", "kwargs": limits}
    return _query("count(*)", operation)


def _null_values(rule: DataQuality, loc: Loc, subject: Subject, operation: Operation) -> Outcome:  # noqa: ARG001
    if operation.is_zero:
        return {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": subject.column}}
    return _counted(f"{identifier(subject.column)} IS NULL", rule, operation)


def _missing_values(rule: DataQuality, loc: Loc, subject: Subject, operation: Operation) -> Outcome:
    values = (rule.arguments or {}).get("missingValues")
    if not isinstance(values, list) or not values:
        return NoCounterpart((*loc, "arguments"), "missingValues needs the list `missingValues`")
    return _counted(_is_any_of(subject.column, values), rule, operation)


def _invalid_values(rule: DataQuality, loc: Loc, subject: Subject, operation: Operation) -> Outcome:
    values, pattern = (rule.arguments or {}).get("validValues"), (rule.arguments or {}).get("pattern")
    if isinstance(values, list) and pattern is None:
        # A missing value is not an invalid one: the metric nullValues counts those.
        return _outside_set(rule, subject, operation, [value for value in values if value is not None])
    if isinstance(pattern, str) and values is None:
        if problem := regex_problem(pattern):
            return NoCounterpart((*loc, "arguments", "pattern"), problem)
        return _outside_pattern(rule, subject, operation, pattern)
    return NoCounterpart((*loc, "arguments"), "invalidValues needs either the list `validValues` or the text `pattern`")


def _outside_set(rule: DataQuality, subject: Subject, operation: Operation, values: list[Any]) -> Expectation:
    if operation.is_zero:
        arguments = {"column": subject.column, "value_set": values}
        return {"type": "expect_column_values_to_be_in_set", "kwargs": arguments}
    column = identifier(subject.column)
    return _counted(f"{column} IS NOT NULL AND NOT ({_is_any_of(subject.column, values)})", rule, operation)


def _outside_pattern(rule: DataQuality, subject: Subject, operation: Operation, pattern: str) -> Expectation:
    if operation.is_zero:
        return {"type": "expect_column_values_to_match_regex", "kwargs": {"column": subject.column, "regex": pattern}}
    matches = f"regexp_matches(CAST({identifier(subject.column)} AS VARCHAR), {literal(pattern)})"
    return _counted(f"NOT {matches}", rule, operation)


def _duplicate_values(rule: DataQuality, loc: Loc, subject: Subject, operation: Operation) -> Outcome:
    names = [subject.column] if subject.column else (rule.arguments or {}).get("properties")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return NoCounterpart((*loc, "arguments"), "duplicateValues of a table needs the list `properties`")
    columns = [subject.columns.get(name, name) for name in names]
    if operation.is_zero:
        return unique_together(columns)
    listed = ", ".join(map(identifier, columns))
    not_null = " AND ".join(f"{identifier(column)} IS NOT NULL" for column in columns)
    repeated = f"SELECT {listed} FROM {BATCH} WHERE {not_null} GROUP BY {listed} HAVING count(*) > 1"  # noqa: S608
    return _query(_share(f"(SELECT count(*) FROM ({repeated}))", rule), operation)  # noqa: S608


def unique_together(columns: list[str]) -> Expectation:
    """No two rows have the same values in these columns."""
    if len(columns) == 1:
        return {"type": "expect_column_values_to_be_unique", "kwargs": {"column": columns[0]}}
    return {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": columns}}


def _is_any_of(column: str, values: list[Any]) -> str:
    """SQL that is true where a column has one of the values, whatever the column's type is."""
    name = identifier(column)
    numbers = [sql_value(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    texts = [literal(str(value)) for value in values if isinstance(value, str)]
    # DuckDB writes a boolean as `true` or `false`.
    texts += [literal(str(value).lower()) for value in values if isinstance(value, bool)]
    tests = [f"{name} IS NULL"] if None in values else []
    tests += [f"CAST({name} AS VARCHAR) IN ({', '.join(texts)})"] if texts else []
    # CAST would end the whole query at the first text that is no number.
    tests += [f"TRY_CAST({name} AS DOUBLE) IN ({', '.join(numbers)})"] if numbers else []
    return " OR ".join(tests) or "FALSE"


def _counted(condition: str, rule: DataQuality, operation: Operation) -> Expectation:
    """Compare the number, or the percentage, of the rows that a condition is true of."""
    return _query(_share(f"count(*) FILTER (WHERE {condition})", rule), operation)


def _share(count: str, rule: DataQuality) -> str:
    # A table without rows has no such rows either.
    return f"coalesce(100.0 * {count} / nullif(count(*), 0), 0)" if rule.unit == "percent" else count


def _query(figure: str, operation: Operation) -> Expectation:
    """Expect that no row comes back: one does when the figure breaks the rule, or is unknown."""
    inner = escaped(f"SELECT {figure} AS figure FROM {BATCH}")  # noqa: S608
    return unexpected(inner, operation)


def unexpected(inner: str, operation: Operation) -> Expectation:
    """Expect of a query's one figure that the operation is true of it. Its braces are doubled already."""
    # A value in the contract may have braces, too.
    condition = operation.sql.replace("{", "{{").replace("}", "}}")
    query = f"SELECT * FROM (\n{inner}\n) AS computed(figure) WHERE (figure {condition}) IS NOT TRUE"  # noqa: S608
    return {"type": QUERY, "kwargs": {"unexpected_rows_query": query}}


def escaped(query: str) -> str:
    """The query with its braces doubled, as Great Expectations formats it, apart from the table's placeholder."""
    return BATCH.join(part.replace("{", "{{").replace("}", "}}") for part in query.split(BATCH))


_METRICS: Mapping[str, Callable[[DataQuality, Loc, Subject, Operation], Outcome]] = {
    "nullValues": _null_values,
    "missingValues": _missing_values,
    "invalidValues": _invalid_values,
    "duplicateValues": _duplicate_values,
}
