"""Parameters of suites: `${previous.rows}` stands for a value that only a validation knows. Pure.

    as_of            when the version was first staged, as ISO 8601 text in UTC
    previous.rows    rows of the same table in the version that the gate's target names
    rows.TABLE       rows of another table of the same version

A parameter is the whole value of an argument, or stands in an SQL query, which gets a literal. `${rows.trips * 0.9}`
multiplies a number; that is all arithmetic. `$${` writes the text `${`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.quoting import literal

if TYPE_CHECKING:
    from prefect_stagegate.spec.models import TableSpec

AS_OF = "as_of"
PREVIOUS_ROWS = "previous.rows"
ROWS = "rows."
"""What the name of another table's rows begins with."""
QUERIES = ("unexpected_rows_query", "base_query", "comparison_query")
"""Arguments of expectations that hold SQL."""
Value = int | float | str

_PARAMETER = re.compile(r"\$(?P<escape>\$)?\{(?P<content>[^{}]*)\}")


class NoValue(Exception):
    """A parameter without a value; the arguments are its name and the reason."""


@dataclass(frozen=True, slots=True)
class SuiteParameters:
    """The values that parameters have in one table's suite."""

    values: Mapping[str, Value]
    reasons: Mapping[str, str]
    """Why the other ones have no value, by name."""

    def value(self, name: str, factor: float | None) -> Value:
        """The value of a parameter, multiplied by the factor.

        Raises:
            NoValue: It has none.
        """
        if name not in self.values:
            raise NoValue(name, self.reasons.get(name, "it is unknown"))
        value = self.values[name]
        # A time stays as it is: `_problem` has refused a factor on it.
        return value if factor is None or isinstance(value, str) else _whole(value * factor)

    def without_zone(self) -> SuiteParameters:
        """The same with times for columns whose times have no zone, and are taken to be in UTC."""
        return replace(self, values={name: _local(value) for name, value in self.values.items()})


def _local(value: Value) -> Value:
    return value.removesuffix("Z") if isinstance(value, str) else value


def names(tables: Iterable[str]) -> tuple[str, ...]:
    """All parameters that the suites of a contract with these tables may name."""
    return (AS_OF, PREVIOUS_ROWS, *(ROWS + table for table in tables))


def examples(tables: Iterable[str]) -> SuiteParameters:
    """A value for each parameter, to check a suite without a version."""
    rows: dict[str, Value] = dict.fromkeys(names(tables), 1)
    return SuiteParameters(rows | {AS_OF: "2026-01-31T03:00:00.000000Z"}, {})


def names_in(arguments: Mapping[str, Any]) -> set[str]:
    """The parameters that an expectation's arguments name."""
    return {_split(content)[0] for _, content, _ in _occurrences(arguments)}


def uses(tables: Mapping[str, TableSpec], name: str) -> bool:
    """Whether an expectation of the tables' suites names a parameter."""
    items = (item for table in tables.values() for item in (table.suite or {}).get("expectations") or ())
    return any(name in names_in(arguments_of(item)) for item in items)


def arguments_of(expectation: object) -> Mapping[str, Any]:
    """An expectation's arguments; none for what is no expectation, which the worker reports."""
    arguments = expectation.get("kwargs") if isinstance(expectation, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else {}


def fill(arguments: Mapping[str, Any], parameters: SuiteParameters) -> dict[str, Any]:
    """An expectation's arguments with values in place of parameters.

    Raises:
        NoValue: One of them has no value.
    """

    def value_of(content: str) -> Value:
        name, factor = _split(content)
        return parameters.value(name, factor)

    return {name: _filled(item, value_of, in_query=name in QUERIES) for name, item in arguments.items()}


def parameter_problems(arguments: Mapping[str, Any], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The arguments that use a parameter wrongly, each with the reason."""
    # It is read for each occurrence, and an iterator would be empty after the first.
    known = tuple(known)
    for argument, content, is_allowed in _occurrences(arguments, known):
        if problem := _problem(content, known, is_allowed=is_allowed):
            yield argument, problem


def _problem(content: str, known: Iterable[str], *, is_allowed: bool) -> str:
    name, factor = _split(content)
    if name not in known:
        return f"there is no parameter ${{{name}}}: {did_you_mean(name, known)}"
    if factor is not None and name == AS_OF:
        return f"${{{content}}}: {AS_OF} is a time, and only numbers are multiplied"
    if factor is not None and not (math.isfinite(factor) and factor > 0):
        return f"${{{content}}}: the factor must be a number above 0, as in ${{{name} * 0.9}}"
    if not is_allowed:
        return f"${{{content}}} must be the whole value, or stand in an SQL query"
    return ""


def _occurrences(arguments: Mapping[str, Any], known: Iterable[str] = ()) -> Iterator[tuple[str, str, bool]]:
    """Each parameter with its argument, and whether it may stand there.

    In a longer text, `${…}` counts only with a known name: a pattern may hold such characters.
    """
    for argument, item in arguments.items():
        for text in _texts(item):
            for match in _PARAMETER.finditer(text):
                is_allowed = argument in QUERIES or match.span() == (0, len(text))
                if not match["escape"] and (is_allowed or _split(match["content"])[0] in known):
                    yield argument, match["content"].strip(), is_allowed


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for part in parts:
        yield from _texts(part)


def _split(content: str) -> tuple[str, float | None]:
    """The name and the factor; NaN for a factor that is no number."""
    name, times, factor = content.partition("*")
    try:
        return name.strip(), float(factor) if times else None
    except ValueError:
        return name.strip(), math.nan


def _filled(value: Any, value_of: Callable[[str], Value], *, in_query: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, value_of, in_query=in_query) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, value_of, in_query=in_query) for item in value]
    if not isinstance(value, str):
        return value
    if in_query:
        return _PARAMETER.sub(lambda match: _literal(match, value_of), value)
    match = _PARAMETER.fullmatch(value)
    if not match:
        return value
    return value[1:] if match["escape"] else value_of(match["content"])


def _literal(match: re.Match[str], value_of: Callable[[str], Value]) -> str:
    """A parameter in a query as an SQL literal, so that no value becomes a part of the statement."""
    if match["escape"]:
        return match[0][1:]
    value = value_of(match["content"])
    return literal(value) if isinstance(value, str) else str(value)


def _whole(number: float) -> int | float:
    return int(number) if number.is_integer() else number
