"""Turn Great Expectations' results into judgements, with figures for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from great_expectations.core import ExpectationValidationResult
from great_expectations.expectations.expectation import Expectation
from great_expectations.validator.metric_configuration import MetricConfiguration

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.worker.process_limits import is_about_limits
from prefect_stagegate.validations.worker.statements import COMPARE, ONLY
from prefect_stagegate.validations.worker.values import MASKED, Form, RowWriter, pattern, plain, short
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement, ShownValues

COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list", "column_set")
NOT_SHOWN = {*COLUMN_ARGUMENTS, "batch_id"}
OF_ROWS = "unexpected_rows_expectation"
FIGURES = re.compile(
    r"expect_table_.*|expect_column_to_exist|expect_column_values_to_be_(of_type|in_type_list)"
    r"|expect_column_(unique_value_count|proportion_of_unique_values|proportion_of_non_null_values)_to_be_between"
)
"""Expectations that observe names, types, counts or shares: never a value of the column."""
FIX = "Correct the data at its source and stage again; if the data is right, change the expectation in the suite."


def judge(
    result: ExpectationValidationResult, expectation: Expectation, columns: Sequence[str], personal: Sequence[str] = ()
) -> Judgement:
    """Turn one result into a judgement without places.

    Args:
        result: What Great Expectations says; without figures where it was asked for the verdict only.
        expectation: The expectation.
        columns: The table's columns.
        personal: Those of them whose values are masked.
    """
    config = expectation.configuration
    judgement = Judgement(
        expectation=config.description or describe(config.type, config.kwargs),
        column=", ".join(columns_of(expectation)),
        severity=str(getattr(expectation.severity, "value", expectation.severity)),
        verdict=ExpectationVerdict.PASSED,
    )
    error = "" if result.success else error_of(result)
    if error:
        problem, fix = explain(error, config.type, columns, is_discreet=bool(personal))
        return replace(judgement, verdict=ExpectationVerdict.ERRORED, problem=problem, fix=fix)
    writer = RowWriter(columns_of(expectation), personal)
    judgement = _with_figures(judgement, config.type, result.result, writer)
    if result.success:
        return judgement
    return replace(judgement, verdict=ExpectationVerdict.FAILED, problem=_problem(judgement, result.result), fix=FIX)


def describe(kind: str, arguments: Mapping[str, Any]) -> str:
    """Name an expectation with its arguments, without its columns.

    >>> describe("expect_column_values_to_be_between", {"column": "distance", "min_value": 0.0})
    'expect_column_values_to_be_between(min_value=0)'
    >>> describe("expect_column_values_to_not_be_null", {"column": "distance"})
    'expect_column_values_to_not_be_null'
    """
    if query := arguments.get("unexpected_rows_query"):
        return f"{kind}: {short(' '.join(str(query).split()))}"
    shown = ", ".join(f"{name}={short(plain(value))}" for name, value in arguments.items() if name not in NOT_SHOWN)
    return f"{kind}({shown})" if shown else kind


def columns_of(expectation: Expectation) -> list[str]:
    """The columns that an expectation is about, in its own order."""
    arguments = expectation.configuration.kwargs
    columns: list[str] = []
    for name in COLUMN_ARGUMENTS:
        value = arguments.get(name) or []
        columns += [value] if isinstance(value, str) else [str(column) for column in value]
    return columns


def map_metric(expectation: Expectation) -> str:
    """The name of a row-wise expectation's metric; empty for an expectation that does not judge rows one by one."""
    return str(getattr(expectation, "map_metric", None) or "")


def metric_of(expectation: Expectation, suffix: str) -> MetricConfiguration:
    """Another metric of a row-wise expectation, with the arguments that its count of refused rows has.

    Args:
        expectation: One with a `map_metric`.
        suffix: What the metric's name ends with, such as `condition`.
    """
    # The expectation's own count of refused rows has the column, the row condition and the arguments.
    name = map_metric(expectation)
    dependencies = expectation.get_validation_dependencies(runtime_configuration={"result_format": "BASIC"})
    count = dependencies.metric_configurations[f"{name}.unexpected_count"]
    domain = {key: value for key, value in (count.metric_domain_kwargs or {}).items() if key != "batch_id"}
    return MetricConfiguration(f"{name}.{suffix}", domain, count.metric_value_kwargs)


def error_of(result: ExpectationValidationResult) -> str:
    """Why an expectation could not be evaluated; empty when it was."""
    # Great Expectations returns one record, or one for each metric.
    info = result.exception_info or {}
    single = [info] if "raised_exception" in info else info.values()
    for entry in single:
        if entry.get("raised_exception"):
            # A MemoryError has no message; its traceback ends with its name.
            traceback = str(entry.get("exception_traceback", "")).strip()
            return str(entry["exception_message"]).strip() or traceback.rpartition("\n")[2] or "no reason given"
    return "" if result.result else "Great Expectations gave no result"


def _with_figures(judgement: Judgement, kind: str, result: Mapping[str, Any], writer: RowWriter) -> Judgement:
    """Add what a result says of rows and values, in the form for the caller and in that for records."""
    refused = result.get("observed_value") if kind == OF_ROWS else result.get("unexpected_count")
    judges_rows = kind == OF_ROWS or "element_count" in result
    return replace(
        judgement,
        rows=_count(result.get("element_count")),
        refused=_count(refused) if judges_rows else None,
        shown=_shown(kind, result, writer, plain),
        recorded=_shown(kind, result, writer, pattern),
    )


def _count(count: int | None) -> int | None:
    """A count as Python's own integer: pandas' can't be written as JSON."""
    return None if count is None else int(count)


def _shown(kind: str, result: Mapping[str, Any], writer: RowWriter, form: Form) -> ShownValues:
    examples = writer.examples(result.get("partial_unexpected_list") or (), form)
    return ShownValues("" if kind == OF_ROWS else _observed(kind, result.get("observed_value"), writer, form), examples)


def _observed(kind: str, observed: object, writer: RowWriter, form: Form) -> str:
    if observed is None:
        return ""
    if isinstance(observed, Mapping) and "values" in observed:
        observed = observed["values"]
    if FIGURES.fullmatch(kind):
        return short(plain(observed))
    # A query of the suite may look at any column.
    hides = writer.is_personal or (writer.personal and not writer.columns)
    return MASKED if hides else short(form(observed))


def _problem(judgement: Judgement, result: Mapping[str, Any]) -> str:
    """What is wrong, as one clause that may be recorded."""
    examples = [example for example in judgement.recorded.examples if example != MASKED]
    clause = f", for example {examples[0]}" if examples else ""
    if judgement.rows is not None:
        return f"{judgement.refused:,} of {count_text(judgement.rows, 'row')} break it{clause}"
    if judgement.refused is not None:
        return f"observed {judgement.refused}"
    mismatched = (result.get("details") or {}).get("mismatched")
    observed = judgement.recorded.observed
    clauses = [f"observed {observed}" if observed else "", short(plain(mismatched)) if mismatched else ""]
    return ", ".join(filter(None, clauses)) or f"observed no value, or NaN{clause}"


# ── why an expectation could not be evaluated ──────────────────────────────────────────────────────────────────

NO_COLUMN = re.compile(
    r'column "(?P<column>.*?)" in BatchData does not exist|unable to recognize column "(?P<c>.*?)"'
    r'|Referenced column "(?P<referenced>.*?)" not found in FROM clause'
)
NOT_KNOWN = "No provider found for SQL using this engine"
"""The error of an expectation whose SQL its table's engine does not run."""
NO_PROVIDER = re.compile(r"No provider found for .* using \w+|No definition found for \w+")
FORBIDDEN = re.compile(rf'{ONLY}|{COMPARE}|Cannot access (file|directory) "(?P<path>.*?)"')
QUOTED = re.compile(r"'.*'")
"""From the first to the last quotation mark, since a value may hold some."""
LIMITS_FIX = (
    "Raise STAGEGATE_VALIDATION_MEMORY or STAGEGATE_VALIDATION_SPILL; `engine: duckdb` spills to disk, pandas does not."
)
FORBIDDEN_FIX = "Name the contract's tables in the query; what else it needs belongs to the dataset's sources."


def explain(error: str, kind: str, columns: Sequence[str], *, is_discreet: bool = False) -> tuple[str, str]:
    """Why an expectation could not be evaluated, and what to do.

    Args:
        error: What Great Expectations or the engine says.
        kind: The expectation's type.
        columns: The table's columns.
        is_discreet: Leave out what the engine says, since it may quote a personal value.
    """
    if match := NO_COLUMN.search(error):
        column = match["column"] or match["c"] or match["referenced"]
        problem = f"not evaluated: the table has no column {column}: {short(did_you_mean(column, columns))}"
        return problem, "Correct the column's name in the suite or the data."
    if NO_PROVIDER.search(error):
        fix = "Write it as unexpected_rows_expectation, in SQL, or take it out of the suite."
        return f"not evaluated: no engine knows {kind}", fix
    if (match := FORBIDDEN.search(error)) and match["path"]:
        return (
            f"not evaluated: it opens {match['path']}, and a suite reads the files of its version only",
            FORBIDDEN_FIX,
        )
    reason = engine_reason(error, is_discreet=is_discreet)
    return f"not evaluated: {reason}", LIMITS_FIX if is_about_limits(error) else "Correct the expectation in the suite."


def engine_reason(error: str, *, is_discreet: bool) -> str:
    """What an engine says about an error, without the texts that it quotes: they may be values.

    >>> engine_reason("Conversion Error: Could not convert string 'N1' to INT32", is_discreet=False)
    "Conversion Error: Could not convert string '…' to INT32"
    """
    if is_discreet:
        return "the engine's reason is left out, since the table has personal columns"
    lines = error.strip().splitlines()
    return short(QUOTED.sub("'…'", lines[0]).rstrip(".")) if lines else "no reason given"


def is_about_the_suite(error: str) -> bool:
    """Whether the suite causes the error, so that no file needs to be looked at for it."""
    return any(pattern.search(error) for pattern in (NO_COLUMN, NO_PROVIDER, FORBIDDEN))


def is_unknown(error: str) -> bool:
    """Whether the engine does not know the expectation, so that another one may."""
    return bool(NO_PROVIDER.search(error))
