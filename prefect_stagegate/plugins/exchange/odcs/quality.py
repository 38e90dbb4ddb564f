"""Quality rules of an ODCS contract as expectations: metrics of the library, SQL, and Great Expectations' own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prefect_stagegate.plugins.exchange.odcs.metrics import (
    BATCH,
    NO_OPERATOR,
    QUERY,
    Outcome,
    Subject,
    escaped,
    metric_expectation,
    unexpected,
)
from prefect_stagegate.plugins.exchange.odcs.odcs_columns import Expectation, NoCounterpart
from prefect_stagegate.plugins.exchange.odcs.operators import operation_of
from prefect_stagegate.quoting import identifier
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
_PLACEHOLDER = re.compile(r"\$?\{(object|table|model|property|column|field)\}")


def rule_expectation(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:
    """The expectation that states a rule."""
    outcome = _KINDS.get(rule.type or "library", _text)(rule, loc, subject)
    if isinstance(outcome, NoCounterpart):
        return outcome
    severity = {"severity": SEVERITIES.get(rule.severity.lower(), "critical")} if rule.severity else {}
    text = rule.description or (_summary(rule, subject) if outcome.get("type") == QUERY else "")
    # The outcome comes last: an expectation that a custom rule holds may state severity and description itself.
    return {**severity, **({"description": text} if text else {}), **outcome}


def _summary(rule: DataQuality, subject: Subject) -> str:
    """What a rule that became a query says, for findings: the query itself would be their text."""
    operation = operation_of(rule)
    if operation is None:
        return ""
    values = " and ".join(map(str, operation.values))
    unit = f" {rule.unit}" if rule.unit else ""
    about = f" of {subject.column}" if subject.column else ""
    return f"{rule.metric or rule.name or 'query'}{about} {operation.operator} {values}{unit}"


def _sql(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:
    operation = operation_of(rule)
    if operation is None:
        return NoCounterpart(loc, NO_OPERATOR)
    # The query becomes part of another one, where a semicolon would end the statement.
    query = (rule.query or "").strip().rstrip(";")
    if not subject.column and any(
        match[1] in ("property", "column", "field") for match in _PLACEHOLDER.finditer(query)
    ):
        return NoCounterpart((*loc, "query"), "the query names a property, and this rule is the table's")
    return unexpected(escaped(_PLACEHOLDER.sub(lambda match: _filled(match[1], subject), query)), operation)


def _filled(placeholder: str, subject: Subject) -> str:
    return BATCH if placeholder in ("object", "table", "model") else identifier(subject.column)


def _custom(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:
    if re.sub(r"[^a-z]", "", (rule.engine or "").lower()) != ENGINE:
        return NoCounterpart((*loc, "engine"), f"rules of {rule.engine!r} are not read; write greatExpectations")
    written = rule.implementation
    if isinstance(written, str):
        try:
            written = read_tree(written)[0]
        except NotYaml as error:
            return NoCounterpart((*loc, "implementation"), error.message)
    if not isinstance(written, dict):
        return NoCounterpart((*loc, "implementation"), "must be an expectation: a mapping with `type` and `kwargs`")
    return _with_column(written, subject)


def _with_column(written: dict[str, Any], subject: Subject) -> Expectation:
    """The expectation, about the property that the rule stands at where it names no column itself."""
    arguments = written.get("kwargs", {})
    about_column = str(written.get("type", "")).startswith("expect_column_") and isinstance(arguments, dict)
    if about_column and subject.column and not any(name.startswith("column") for name in arguments):
        arguments = {"column": subject.column, **arguments}
    return {**written, "kwargs": arguments}


def _text(rule: DataQuality, loc: Loc, subject: Subject) -> Outcome:  # noqa: ARG001 - as those of `_KINDS`
    return NoCounterpart(loc, "no check tests a rule in words")


_KINDS: Mapping[str, Callable[[DataQuality, Loc, Subject], Outcome]] = {
    "library": metric_expectation,
    "sql": _sql,
    "custom": _custom,
}
