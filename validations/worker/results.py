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
from prefect_stagegate.validations.records import ExpectationVerdict, Judgement
from prefect_stagegate.validations.worker.statements import COMPARE, ONLY

COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list", "column_set")
NOT_SHOWN = {*COLUMN_ARGUMENTS, "batch_id"}
LONGEST = 120
"""Characters of a value or list that are shown."""
NULL = "null"
FIX = "Correct the data at its source and stage again; if the data is right, change the expectation in the suite."


def judge(result: ExpectationValidationResult, expectation: Expectation, columns: Sequence[str]) -> Judgement:
    """Turn one result into a judgement without places; `columns` are the table's."""
    config = expectation.configuration
    judgement = Judgement(
        expectation=config.description or describe(config.type, config.kwargs),
        column=", ".join(columns_of(expectation)),
        severity=str(getattr(expectation.severity, "value", expectation.severity)),
        verdict=ExpectationVerdict.PASSED,
    )
    if result.success:
        return judgement
    if error := error_of(result):
        problem, fix = explain(error, config.type, config.kwargs, columns)
        return replace(judgement, verdict=ExpectationVerdict.ERRORED, problem=problem, fix=fix)
    return replace(judgement, verdict=ExpectationVerdict.FAILED, problem=figures(result.result), fix=FIX)


def describe(kind: str, arguments: Mapping[str, Any]) -> str:
    """Name an expectation with its arguments, without its columns.

    >>> describe("expect_column_values_to_be_between", {"column": "distance", "min_value": 0.0})
    'expect_column_values_to_be_between(min_value=0)'
    >>> describe("expect_column_values_to_not_be_null", {"column": "distance"})
    'expect_column_values_to_not_be_null'
    """
    if query := arguments.get("unexpected_rows_query"):
        return f"{kind}: {_short(' '.join(str(query).split()))}"
    shown = ", ".join(
        f"{name}={_short(_value_text(value))}" for name, value in arguments.items() if name not in NOT_SHOWN
    )
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


def metric_of(expectation: Expectation, suffix: str, options: Mapping[str, Any] | None = None) -> MetricConfiguration:
    """Another metric of a row-wise expectation, with the arguments that its count of refused rows has.

    Args:
        expectation: One with a `map_metric`.
        suffix: What the metric's name ends with: `condition`, `unexpected_index_query`, …
        options: The metric's own arguments.
    """
    # The expectation's own count of refused rows has the column, the row condition and the arguments.
    name = map_metric(expectation)
    dependencies = expectation.get_validation_dependencies(runtime_configuration={"result_format": "BASIC"})
    count = dependencies.metric_configurations[f"{name}.unexpected_count"]
    domain = {key: value for key, value in (count.metric_domain_kwargs or {}).items() if key != "batch_id"}
    return MetricConfiguration(f"{name}.{suffix}", domain, {**(count.metric_value_kwargs or {}), **(options or {})})


def error_of(result: ExpectationValidationResult) -> str:
    """Why an expectation could not be evaluated; empty when it was."""
    # Great Expectations returns one record, or one for each metric.
    info = result.exception_info or {}
    single = [info] if "raised_exception" in info else info.values()
    messages = [str(entry["exception_message"]) for entry in single if entry.get("raised_exception")]
    if messages:
        return messages[0].strip()
    return "" if result.result else "Great Expectations gave no result"


def figures(result: Mapping[str, Any]) -> str:
    """The figures of a failed expectation, as one clause."""
    # Some expectations count unexpected values, and no rows.
    if "unexpected_count" in result and "element_count" in result:
        example = figure((result.get("partial_unexpected_list") or [])[:1])
        clause = f"{result['unexpected_count']:,} of {count_text(result['element_count'], 'row')} break it"
        return f"{clause}, for example {example}" if example else clause
    observed = result.get("observed_value")
    if isinstance(observed, Mapping) and "values" in observed:
        observed = observed["values"]
    clause = f"observed {_short(_value_text(observed))}"
    mismatched = (result.get("details") or {}).get("mismatched")
    return f"{clause}, {_short(_value_text(mismatched))}" if mismatched else clause


def figure(values: Sequence[object]) -> str:
    """Values of one row as text; empty when all of them are null.

    >>> figure([-5.0]), figure([1, None]), figure([None])
    ('-5', '1, null', '')
    """
    shown = [_value_text(value) for value in values]
    return "" if set(shown) <= {NULL} else _short(", ".join(shown))


def _value_text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple | set):
        return "[" + ", ".join(_value_text(item) for item in value) + "]"
    if value is None or value != value:  # noqa: PLR0124 - NaN and NaT are the values that differ from themselves
        return NULL
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


# ── why an expectation could not be evaluated ──────────────────────────────────────────────────────────────────

NO_COLUMN = re.compile(
    r'column "(?P<column>.*?)" in BatchData does not exist|unable to recognize column "(?P<c>.*?)"'
    r'|Referenced column "(?P<referenced>.*?)" not found in FROM clause'
)
NO_PATTERNS = re.compile(r"(Regex is|Like patterns are) not supported")
NOT_KNOWN = "No provider found for SQL using this engine"
"""The error of an expectation whose SQL its table's engine does not run."""
NO_PROVIDER = re.compile(r"No provider found for .* using \w+")
FORBIDDEN = re.compile(rf'{ONLY}|{COMPARE}|Cannot access (file|directory) "(?P<path>.*?)"')
FORBIDDEN_FIX = "Name the contract's tables in the query; what else it needs belongs to the dataset's sources."


def explain(error: str, kind: str, arguments: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, str]:
    """Why an expectation could not be evaluated, and what to do; `columns` are the table's."""
    if match := NO_COLUMN.search(error):
        column = match["column"] or match["c"] or match["referenced"]
        problem = f"not evaluated: the table has no column {column}: {_short(did_you_mean(column, columns))}"
        return problem, "Correct the column's name in the suite or the data."
    if NO_PATTERNS.search(error):
        return f"not evaluated: Great Expectations knows no {kind} on DuckDB", _pattern_fix(arguments)
    if NO_PROVIDER.search(error):
        fix = "Write it as unexpected_rows_expectation, in SQL, or take it out of the suite."
        return f"not evaluated: no engine knows {kind}", fix
    if (match := FORBIDDEN.search(error)) and match["path"]:
        return (
            f"not evaluated: it opens {match['path']}, and a suite reads the files of its version only",
            FORBIDDEN_FIX,
        )
    lines = error.splitlines()
    return f"not evaluated: {_short(lines[0]) if lines else 'no reason given'}", "Correct the expectation in the suite."


def is_about_the_suite(error: str) -> bool:
    """Whether the suite causes the error, so that no file needs to be looked at for it."""
    return any(pattern.search(error) for pattern in (NO_COLUMN, NO_PATTERNS, NO_PROVIDER, FORBIDDEN))


def is_unknown(error: str) -> bool:
    """Whether the engine does not know the expectation, so that another one may."""
    return any(pattern.search(error) for pattern in (NO_PATTERNS, NO_PROVIDER))


def _pattern_fix(arguments: Mapping[str, Any]) -> str:
    column = arguments.get("column", "column")
    if "regex" in arguments:
        condition = f"NOT regexp_matches({column}, '{arguments['regex']}')"
    elif "like_pattern" in arguments:
        condition = f"{column} NOT LIKE '{arguments['like_pattern']}'"
    else:
        condition = f"… {column} …"
    query = f"SELECT * FROM {{batch}} WHERE {condition}"  # noqa: S608 - shown to people, not run
    return f'Write it as unexpected_rows_expectation with unexpected_rows_query: "{query}", or set `engine: pandas`.'
