"""Build Great Expectations' objects from a contract's suite, and collect every mistake in it.

`ExpectationSuite(expectations=[…])` logs an expectation that it can't build and goes on without it, which would pass
data that nobody looked at. This module builds each expectation itself and reports those that it can't build.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

from great_expectations.compatibility import pydantic
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.spec.suites import expectation_name
from prefect_stagegate.validations.engines.duckdb_patterns import regex_problem
from prefect_stagegate.validations.worker.plugin_expectations import UnloadablePlugin, load_custom_expectation
from prefect_stagegate.validations.worker.statements import argument_problems
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement

POSITION = "stagegate_position"
OTHER_ENGINE = "write it without, or set `engine: pandas`"
BOUNDS = ("min_value", "max_value")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(rf"{_DAY.pattern}[T ][\d:.]+(Z|[+-][\d:]+)?$")
KEYS = ("type", "kwargs", "severity", "description", "notes", "meta")


@dataclass(frozen=True, slots=True)
class BuiltSuite:
    """What became of a suite's expectations."""

    expectations: list[Expectation] = field(default_factory=list)
    """Each with its position (from 1) under `POSITION` in its `meta`."""
    unloadable: dict[int, Judgement] = field(default_factory=dict)
    """Those of packages that can't be loaded: nothing is wrong with the suite, and nothing is known about the data."""
    problems: list[str] = field(default_factory=list)
    """A line for each mistake, which begins with the name of the expectation."""


def build(table: str, suite: Mapping[str, Any], engine: str = "duckdb") -> BuiltSuite:
    """Build a suite's expectations for the engine that will evaluate them."""
    built = BuiltSuite()
    for number, item in enumerate(suite.get("expectations") or [], start=1):
        kind = item.get("type", "without a type") if isinstance(item, Mapping) else item
        try:
            made = _expectation(item, engine)
        except UnloadablePlugin as error:
            reason, fix = error.args
            severity, verdict = str(item.get("severity", "critical")), ExpectationVerdict.ERRORED
            built.unloadable[number] = Judgement(item["type"], "", severity, verdict, f"not evaluated: {reason}", fix)
            continue
        if isinstance(made, Expectation):
            made.meta = {**(made.meta or {}), POSITION: number}
            built.expectations.append(made)
        else:
            built.problems.extend(f"{expectation_name(table, number - 1)}: {kind}: {problem}" for problem in made)
    return built


def _expectation(item: Any, engine: str) -> Expectation | list[str]:
    """The expectation, or what is wrong with it.

    Raises:
        UnloadablePlugin: Another package has it, and can't be loaded.
    """
    if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
        return ["an expectation is a mapping with `type` and `kwargs`"]
    if unknown := [f"unknown key {key!r}: {did_you_mean(str(key), KEYS)}" for key in item if key not in (*KEYS, "id")]:
        return unknown
    load_custom_expectation(item["type"])
    known = list_registered_expectation_implementations()
    if item["type"] not in known:
        return [f"there is no such expectation: {did_you_mean(item['type'], known)}"]
    # Great Expectations gets only arguments that passed this check.
    arguments = item.get("kwargs") or {}
    problems = [*argument_problems(arguments), *(_regex_problems(arguments) if engine == "duckdb" else ())]
    refused = [f"argument {name!r}: {problem}" for name, problem in problems]
    return refused or _made(item)


def _regex_problems(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("regex", "regex_list"):
        value = arguments.get(name)
        for regex in value if isinstance(value, list) else [value]:
            if isinstance(regex, str) and (problem := regex_problem(regex)):
                yield name, f"{problem}; {OTHER_ENGINE}"


def _made(item: Mapping[str, Any]) -> Expectation | list[str]:
    _keep_whole_numbers(get_expectation_impl(item["type"]))
    kept = {key: item[key] for key in KEYS if key in item} | {"kwargs": _with_like_times(item.get("kwargs") or {})}
    try:
        made = ExpectationConfiguration(**kept).to_domain_obj()
    except pydantic.ValidationError as error:
        fields = [name for name in get_expectation_impl(item["type"]).__fields__ if name not in Expectation.__fields__]
        by_name = {name: list(of) for name, of in groupby(error.errors(), lambda entry: str(entry["loc"][0]))}
        whole = [str(entry["msg"]) for entry in by_name.pop("__root__", ())]
        arguments = item.get("kwargs") or {}
        # What a wrong argument makes wrong with the whole is only its consequence.
        return [_argument_problem(name, of, arguments.get(name), fields) for name, of in by_name.items()] or whole
    except (GreatExpectationsError, TypeError, ValueError) as error:
        return [str(error)]
    try:
        sorted(bound for name in BOUNDS if (bound := getattr(made, name, None)) is not None)
    except TypeError as error:
        return [f"arguments 'min_value' and 'max_value' do not compare: {error}"]
    for name, value in kept["kwargs"].items():
        # pydantic cuts the fraction of a count's bound, so that `min_value: 3.7` would take 3 rows.
        if isinstance(value, float) and type(used := getattr(made, name, value)) is int and used != value:
            if name not in BOUNDS:
                return [f"argument {name!r}: must be a whole number, not {value!r}"]
            is_strict = getattr(made, f"strict_{name[:3]}", False)
            setattr(made, name, math.ceil(value) if (name == "min_value") != is_strict else math.floor(value))
    return made


@cache
def _keep_whole_numbers(kind: type[Expectation]) -> None:
    """Make an expectation take whole numbers as they are: it makes floats of them, which are wrong beyond 2^53."""
    for name in BOUNDS:
        field = kind.__fields__.get(name)
        for form in (field.sub_fields or ()) if field else ():
            if form.type_ is float:
                form.validators = [_unless_whole(validator) for validator in form.validators or ()]


def _unless_whole(validator: Callable[..., Any]) -> Callable[..., Any]:
    return lambda kind, value, *rest: value if type(value) is int else validator(kind, value, *rest)


def _with_like_times(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with a day as its midnight where the other bound is a time, in the zone of that one."""
    bounds = {name: str(arguments[name]) for name in BOUNDS if arguments.get(name) is not None}
    times = [match for text in bounds.values() if (match := _TIME.match(text))]
    midnights = {
        name: f"{day}T00:00:00{times[0][1] or ''}" for name, day in bounds.items() if times and _DAY.fullmatch(day)
    }
    return {**arguments, **midnights}


_BOUNDS = {"not_le": "at most", "not_lt": "less than", "not_ge": "at least", "not_gt": "more than"}
_FORMS = {"float": "a number", "integer": "a whole number", "bool": "true or false", "str": "text", "list": "a list"}
_FORMS |= dict.fromkeys(("date", "datetime"), "a date")
"""What an argument may be, by the last part of pydantic's name of the error."""


def _argument_problem(name: str, errors: Sequence[Any], value: Any, fields: list[str]) -> str:
    """What is wrong with one argument: pydantic reports an error for each form that it may have."""
    kinds = {error["type"].rpartition(".")[2]: error for error in errors}
    if "extra" in kinds:
        return f"unknown argument {name!r}: {did_you_mean(name, fields)}"
    for kind in kinds.keys() & _BOUNDS.keys():
        is_percent = name == "mostly" and isinstance(value, int | float) and 1 < value <= 100  # noqa: PLR2004
        share = f"; did you mean {value / 100:g}?" if is_percent else ""
        limit = kinds[kind]["ctx"]["limit_value"]
        return f"argument {name!r}: must be {_BOUNDS[kind]} {limit:g}, not {value!r}{share}"
    if forms := list(dict.fromkeys(_FORMS[kind] for kind in kinds if kind in _FORMS)):
        return f"argument {name!r}: must be {' or '.join(forms)}, not {value!r}"
    return f"argument {name!r}: {'; '.join(error['msg'] for error in errors)}"
