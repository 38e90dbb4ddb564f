"""Build Great Expectations' objects from a contract's suite, and collect every mistake in it.

`ExpectationSuite(expectations=[…])` logs an expectation that it can't build and goes on without it, which would pass
data that nobody looked at. This module builds each expectation itself and reports those that it can't build.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from great_expectations.compatibility import pydantic
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.validations.worker.statements import argument_problems

POSITION = "stagegate_position"
KEYS = ("type", "kwargs", "severity", "description", "notes", "meta")


def build(table: str, suite: Mapping[str, Any]) -> tuple[list[Expectation], list[str]]:
    """Build a suite's expectations.

    Returns:
        The expectations, each with its position (from 1) under `POSITION` in its `meta`, and a line for each mistake
        that names the table and the position.
    """
    expectations: list[Expectation] = []
    problems: list[str] = []
    for number, item in enumerate(suite.get("expectations") or [], start=1):
        made = _expectation(item)
        if isinstance(made, Expectation):
            made.meta = {**(made.meta or {}), POSITION: number}
            expectations.append(made)
        else:
            kind = item.get("type", "without a type") if isinstance(item, Mapping) else item
            problems += [f"table {table}, expectation {number} ({kind}): {problem}" for problem in made]
    return expectations, problems


def _expectation(item: Any) -> Expectation | list[str]:
    """The expectation, or what is wrong with it."""
    if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
        return ["an expectation is a mapping with `type` and `kwargs`"]
    if unknown := [f"unknown key {key!r}: {did_you_mean(str(key), KEYS)}" for key in item if key not in (*KEYS, "id")]:
        return unknown
    known = list_registered_expectation_implementations()
    if item["type"] not in known:
        return [f"there is no such expectation: {did_you_mean(item['type'], known)}"]
    # Great Expectations gets only arguments that passed this check.
    refused = [f"argument {name!r}: {problem}" for name, problem in argument_problems(item.get("kwargs") or {})]
    return refused or _made(item)


def _made(item: Mapping[str, Any]) -> Expectation | list[str]:
    try:
        return ExpectationConfiguration(
            **{"kwargs": {}, **{key: item[key] for key in KEYS if key in item}}
        ).to_domain_obj()
    except pydantic.ValidationError as error:
        fields = [name for name in get_expectation_impl(item["type"]).__fields__ if name not in _NOT_ARGUMENTS]
        return [_argument_problem(entry, fields) for entry in error.errors()]
    except (GreatExpectationsError, TypeError, ValueError) as error:
        return [str(error)]


_NOT_ARGUMENTS = {
    "id",
    "meta",
    "notes",
    "description",
    "severity",
    "rendered_content",
    "batch_id",
    "result_format",
    "windows",
}
"""Fields of an expectation that are not its arguments."""


def _argument_problem(error: Any, fields: list[str]) -> str:
    name = str(error["loc"][0])
    if name == "__root__":
        return str(error["msg"])
    if error["type"] == "value_error.extra":
        return f"unknown argument {name!r}: {did_you_mean(name, fields)}"
    return f"argument {name!r}: {error['msg']}"
