"""The parameters of a table's suite: their values for one version, and the expectations that lack one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect_stagegate.spec.parameters import (
    AS_OF,
    PREVIOUS_ROWS,
    ROWS,
    NoValue,
    SuiteParameters,
    Value,
    arguments_of,
    examples,
    fill,
    names,
    names_in,
    parameter_problems,
)
from prefect_stagegate.spec.suites import expectation_name
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """What the caller knows of a version and its predecessor."""

    as_of: str = ""
    """When the version was first staged, as ISO 8601 text in UTC; empty where that isn't known."""
    previous_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows of tables in the version that the gate's target names."""
    no_previous: str = "no gate compares this version with another one"
    """Why a table has no such rows."""


@dataclass(frozen=True, slots=True)
class FilledSuite:
    """A suite with values in place of its parameters."""

    suite: Mapping[str, Any]
    used: Mapping[str, Value]
    """The values, by the parameter's name."""
    not_applicable: Sequence[Judgement]
    """The expectations that were taken out, since a parameter of theirs has no value."""


def parameters_of(table: str, rows: Mapping[str, int], facts: SuiteFacts) -> SuiteParameters:
    """The values of all parameters in one table's suite.

    Args:
        table: The table.
        rows: Rows of all tables of the version.
        facts: What else is known.
    """
    values: dict[str, Value] = {ROWS + name: count for name, count in rows.items()}
    reasons = {PREVIOUS_ROWS: facts.no_previous, AS_OF: "no record says when the version was staged"}
    if facts.as_of:
        values[AS_OF] = facts.as_of
    if table in facts.previous_rows:
        values[PREVIOUS_ROWS] = facts.previous_rows[table]
    return SuiteParameters(values, reasons)


def fill_suite(
    suite: Mapping[str, Any], parameters: SuiteParameters, zoneless: Collection[str] = frozenset()
) -> FilledSuite:
    """Put the values into a suite, and take out the expectations that lack one.

    Args:
        suite: The suite, as JSON values.
        parameters: The values.
        zoneless: Columns whose times have no zone. They compare with no time that has one.
    """
    kept, not_applicable = [], []
    used: dict[str, Value] = {}
    for item in suite.get("expectations") or ():
        arguments = arguments_of(item)
        if not arguments:
            kept.append(item)
            continue
        values = parameters.without_zone() if arguments.get("column") in zoneless else parameters
        try:
            kept.append({**item, "kwargs": fill(arguments, values)})
        except NoValue as missing:
            not_applicable.append(_not_applicable(item, *missing.args))
        else:
            used |= {name: parameters.values[name] for name in names_in(arguments)}
    return FilledSuite({**suite, "expectations": kept}, used, not_applicable)


def _not_applicable(item: Mapping[str, Any], name: str, reason: str) -> Judgement:
    column = item["kwargs"].get("column")
    return Judgement(
        expectation=item.get("description") or str(item.get("type")),
        column=column if isinstance(column, str) else "",
        severity=str(item.get("severity", "critical")),
        verdict=ExpectationVerdict.NOT_APPLICABLE,
        problem=f"${{{name}}} has no value: {reason}",
    )


def example_suite(suite: Mapping[str, Any], tables: Sequence[str]) -> Mapping[str, Any]:
    """The suite with an example of each value, to build it without a version."""
    return fill_suite(suite, examples(tables)).suite


def misused(table: str, suite: Mapping[str, Any], tables: Sequence[str]) -> Iterator[str]:
    """The mistakes in a suite's parameters, a line each. A stored spec was not checked when it was loaded."""
    for position, item in enumerate(suite.get("expectations") or ()):
        for argument, problem in parameter_problems(arguments_of(item), names(tables)):
            yield f"{expectation_name(table, position)}: {item.get('type')}: argument {argument!r}: {problem}"
