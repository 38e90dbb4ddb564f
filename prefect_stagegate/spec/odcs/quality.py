"""Quality rules of an ODCS contract as expectations.

A rule that an expectation states exactly becomes that expectation, whose counts are kept by file. Every other figure is
counted by a query, which returns a row when the figure breaks the rule. Nothing is run here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_stagegate.quoting import identifier, literal
from prefect_stagegate.spec.odcs.columns import Expectation, NoCounterpart
from prefect_stagegate.spec.odcs.comparison import Comparison, comparison_of, sql_value
from prefect_stagegate.spec.yamltree import Loc, NotYaml, read_tree

if TYPE_CHECKING:
    from open_data_contract_standard.model import DataQuality

ENGINE = "greatexpectations"
"""The engine of custom rules that is ours, without case and punctuation."""
SEVERITIES = {
    **dict.fromkeys(("warning", "warn", "minor", "medium", "low"), "warning"),
    **dict.fromkeys(("info", "information", "notice"), "info"),
}
"""Our severity of a rule's, which the standard leaves open; every other one is critical."""
QUERY = "unexpected_rows_expectation"
"""The expectation that a query returns no row."""
BATCH = "{batch}"
"""What Great Expectations replaces by the table."""
_PLACEHOLDER = re.compile(r"\$?\{(object|table|model|property|column|field)\}")

Outcome = Expectation | NoCounterpart


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rule is about."""

    column: str
    """The column's name in the data; empty for the table."""
    columns: Mapping[str, str]
    """The names in the data of the table's columns, by their names in the contract."""


def rule_expectation(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:
    """The expectation that states a rule."""
    kind = rule.type or "library"
    outcome = _KINDS[kind](rule, loc, subject) if kind in _KINDS else _none(loc, "no check tests a rule in words")
    if isinstance(outcome, NoCounterpart):
        return outcome
    severity = {"severity": SEVERITIES.get(rule.severity.lower(), "critical")} if rule.severity else {}
    text = rule.description or (_summary(rule, subject) if outcome.get("type") == QUERY else "")
    return {**severity, **({"description": text} if text else {}), **outcome}


def _summary(rule: DataQuality, subject: Subject) -> str:
    """What a rule that became a query says, for findings: the query itself would be their text."""
    comparison = comparison_of(rule)
    if comparison is None:
        return ""
    values = " and ".join(map(str, comparison.values))
    unit = f" {rule.unit}" if rule.unit else ""
    about = f" of {subject.column}" if subject.column else ""
    return f"{rule.metric or rule.name or 'query'}{about} {comparison.operator} {values}{unit}"


def _none(loc: Loc, reason: str) -> NoCounterpart:
    return NoCounterpart(loc, reason)


# ── library ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _library(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:
    comparison = comparison_of(rule)
    if comparison is None:
        return _none(loc, "the rule has no operator, such as `mustBe: 0`")
    if rule.unit not in (None, "rows", "percent"):
        return _none((*loc, "unit"), f"{rule.unit!r} is neither rows nor percent")
    metric = rule.metric or ""
    if metric == "rowCount":
        return _row_count(comparison)
    if metric != "duplicateValues" and not subject.column:
        return _none(loc, f"{metric} is a metric of a property, and this rule is the table's")
    return _METRICS[metric](rule, loc, subject, comparison)


def _row_count(comparison: Comparison) -> Expectation:
    if limits := comparison.whole_limits():
        return {"type": "expect_table_row_count_to_be_between", "kwargs": limits}
    return _query("count(*)", comparison)


def _null_values(rule: DataQuality, loc: Loc, subject: Subject, comparison: Comparison) -> Outcome:  # noqa: ARG001
    if comparison.is_zero:
        return {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": subject.column}}
    return _counted(f"{identifier(subject.column)} IS NULL", rule, comparison)


def _missing_values(rule: DataQuality, loc: Loc, subject: Subject, comparison: Comparison) -> Outcome:
    values = (rule.arguments or {}).get("missingValues")
    if not isinstance(values, list) or not values:
        return _none((*loc, "arguments"), "missingValues needs the list `missingValues`")
    return _counted(_is_any_of(subject.column, values), rule, comparison)


def _invalid_values(rule: DataQuality, loc: Loc, subject: Subject, comparison: Comparison) -> Outcome:
    values, pattern = (rule.arguments or {}).get("validValues"), (rule.arguments or {}).get("pattern")
    if isinstance(values, list) and pattern is None:
        return _outside_set(rule, subject, comparison, [value for value in values if value is not None])
    if isinstance(pattern, str) and values is None:
        return _outside_pattern(rule, subject, comparison, pattern)
    return _none((*loc, "arguments"), "invalidValues needs either the list `validValues` or the text `pattern`")


def _outside_set(rule: DataQuality, subject: Subject, comparison: Comparison, values: list[Any]) -> Expectation:
    if comparison.is_zero:
        arguments = {"column": subject.column, "value_set": values}
        return {"type": "expect_column_values_to_be_in_set", "kwargs": arguments}
    column = identifier(subject.column)
    return _counted(f"{column} IS NOT NULL AND NOT ({_is_any_of(subject.column, values)})", rule, comparison)


def _outside_pattern(rule: DataQuality, subject: Subject, comparison: Comparison, pattern: str) -> Expectation:
    if comparison.is_zero:
        return {"type": "expect_column_values_to_match_regex", "kwargs": {"column": subject.column, "regex": pattern}}
    matches = f"regexp_matches(CAST({identifier(subject.column)} AS VARCHAR), {literal(pattern)})"
    return _counted(f"NOT {matches}", rule, comparison)


def _duplicate_values(rule: DataQuality, loc: Loc, subject: Subject, comparison: Comparison) -> Outcome:
    names = [subject.column] if subject.column else (rule.arguments or {}).get("properties")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return _none((*loc, "arguments"), "duplicateValues of a table needs the list `properties`")
    columns = [subject.columns.get(name, name) for name in names]
    if comparison.is_zero:
        return unique_together(columns)
    listed = ", ".join(map(identifier, columns))
    repeated = f"SELECT {listed} FROM {BATCH} WHERE {_all_given(columns)} GROUP BY {listed} HAVING count(*) > 1"
    return _query(_share(f"(SELECT count(*) FROM ({repeated}))", rule), comparison)


def unique_together(columns: list[str]) -> Expectation:
    """No two rows have the same values in these columns."""
    if len(columns) == 1:
        return {"type": "expect_column_values_to_be_unique", "kwargs": {"column": columns[0]}}
    return {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": columns}}


def _all_given(columns: list[str]) -> str:
    return " AND ".join(f"{identifier(column)} IS NOT NULL" for column in columns)


def _is_any_of(column: str, values: list[Any]) -> str:
    """SQL that is true where a column has one of the values, whatever the column's type is."""
    name = identifier(column)
    numbers = [sql_value(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    texts = [literal(str(value)) for value in values if isinstance(value, str)]
    texts += [literal(str(value).lower()) for value in values if isinstance(value, bool)]
    tests = [f"{name} IS NULL"] if None in values else []
    tests += [f"CAST({name} AS VARCHAR) IN ({', '.join(texts)})"] if texts else []
    tests += [f"TRY_CAST({name} AS DOUBLE) IN ({', '.join(numbers)})"] if numbers else []
    return " OR ".join(tests) or "FALSE"


def _counted(condition: str, rule: DataQuality, comparison: Comparison) -> Expectation:
    """Compare the number, or the percentage, of the rows that a condition is true of."""
    return _query(_share(f"count(*) FILTER (WHERE {condition})", rule), comparison)


def _share(count: str, rule: DataQuality) -> str:
    # A table without rows has no such rows either.
    return f"coalesce(100.0 * {count} / nullif(count(*), 0), 0)" if rule.unit == "percent" else count


def _query(figure: str, comparison: Comparison) -> Expectation:
    """Expect that no row comes back: one does when the figure breaks the rule, or is unknown."""
    inner = _escaped(f"SELECT {figure} AS figure FROM {BATCH}")
    return _unexpected(inner, comparison)


def _unexpected(inner: str, comparison: Comparison) -> Expectation:
    condition = comparison.sql.replace("{", "{{").replace("}", "}}")
    query = f"SELECT * FROM (\n{inner}\n) AS computed(figure) WHERE (figure {condition}) IS NOT TRUE"
    return {"type": QUERY, "kwargs": {"unexpected_rows_query": query}}


def _escaped(query: str) -> str:
    """The query with its braces doubled, as Great Expectations formats it, apart from the table's placeholder."""
    return BATCH.join(part.replace("{", "{{").replace("}", "}}") for part in query.split(BATCH))


_METRICS: Mapping[str, Callable[[DataQuality, Loc, Subject, Comparison], Outcome]] = {
    "nullValues": _null_values,
    "missingValues": _missing_values,
    "invalidValues": _invalid_values,
    "duplicateValues": _duplicate_values,
}


# ── sql and custom ──────────────────────────────────────────────────────────────────────────────────────────────


def _sql(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:
    comparison = comparison_of(rule)
    if comparison is None:
        return _none(loc, "the rule has no operator, such as `mustBe: 0`")
    query = (rule.query or "").strip().rstrip(";")
    if not subject.column and any(match[1] in ("property", "column", "field") for match in _PLACEHOLDER.finditer(query)):
        return _none((*loc, "query"), "the query names a property, and this rule is the table's")
    return _unexpected(_escaped(_PLACEHOLDER.sub(lambda match: _filled(match[1], subject), query)), comparison)


def _filled(placeholder: str, subject: Subject) -> str:
    return BATCH if placeholder in ("object", "table", "model") else identifier(subject.column)


def _custom(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:
    if re.sub(r"[^a-z]", "", (rule.engine or "").lower()) != ENGINE:
        return _none((*loc, "engine"), f"rules of {rule.engine!r} are not read; write greatExpectations")
    written = rule.implementation
    if isinstance(written, str):
        try:
            written = read_tree(written)[0]
        except NotYaml as error:
            return _none((*loc, "implementation"), error.message)
    if not isinstance(written, dict):
        return _none((*loc, "implementation"), "must be an expectation: a mapping with `type` and `kwargs`")
    return _with_column(written, subject)


def _with_column(written: dict[str, Any], subject: Subject) -> Expectation:
    """The expectation, about the property that the rule stands at where it names no column itself."""
    arguments = written.get("kwargs", {})
    about_column = str(written.get("type", "")).startswith("expect_column_") and isinstance(arguments, dict)
    if about_column and subject.column and not any(name.startswith("column") for name in arguments):
        arguments = {"column": subject.column, **arguments}
    return {**written, "kwargs": arguments}


_KINDS: Mapping[str, Callable[[DataQuality, Loc, Subject], Outcome]] = {
    "library": _library,
    "sql": _sql,
    "custom": _custom,
}
