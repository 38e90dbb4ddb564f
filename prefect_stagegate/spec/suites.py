"""Great Expectations suites, in its own vocabulary, read from their files and put into the spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from prefect_stagegate.errors import did_you_mean, nearest
from prefect_stagegate.spec import vocabulary
from prefect_stagegate.spec.complaints import check
from prefect_stagegate.spec.fields import SpecModel, Text
from prefect_stagegate.spec.parameters import examples, fill, names, parameter_problems
from prefect_stagegate.spec.parsed_document import ParsedDocument, UnreadableDocument, read_beside
from prefect_stagegate.spec.yamltree import Loc

if TYPE_CHECKING:
    from prefect_stagegate.spec.models import TableSpec

ArgumentProblems = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]
"""Finds the arguments of an expectation that no suite may have, each with the reason."""
MOST_SUITES = 20
"""Suites that one table may have as a list."""


class ExpectationSpec(SpecModel):
    """One expectation, as Great Expectations writes it."""

    type: Text = Field(
        description="The expectation's name in snake case.", examples=["expect_column_values_to_not_be_null"]
    )
    kwargs: dict[str, Any] = Field(
        default={}, description="The expectation's arguments.", examples=[{"column": "year", "mostly": 0.99}]
    )
    severity: Literal["critical", "warning", "info"] = Field(
        default="critical",
        description="What a failure does: critical refuses, warning is reported, info is noted.",
        examples=["warning"],
    )
    description: str | None = Field(
        default=None, description="What the expectation says, for reports.", examples=["Every flight has a year."]
    )
    notes: str | list[str] | None = Field(
        default=None, description="Why it is expected, for people.", examples=["Agreed with the airline."]
    )
    meta: dict[str, Any] = Field(
        default={}, description="Whatever else is to be kept with it.", examples=[{"ticket": "DATA-7"}]
    )
    id: str | None = Field(
        default=None, description="An id of Great Expectations' own store; not kept.", examples=["06406765"]
    )


class SuiteSpec(SpecModel):
    """A suite of expectations about one table, as Great Expectations exports it."""

    name: Text | None = Field(
        default=None, description="The suite's name; the table's by default.", examples=["flights"]
    )
    expectations: list[ExpectationSpec] = Field(
        description="What is expected of the table.",
        examples=[[{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "year"}}]],
    )
    notes: str | list[str] | None = Field(
        default=None, description="What the suite is for, for people.", examples=["What training relies on."]
    )
    meta: dict[str, Any] = Field(
        default={}, description="Whatever else is to be kept with it.", examples=[{"reviewed": "2026-01-31"}]
    )
    id: str | None = Field(
        default=None, description="An id of Great Expectations' own store; not kept.", examples=["06406765"]
    )


def inline_suites(document: ParsedDocument, argument_problems: ArgumentProblems | None = None) -> dict[str, Any]:
    """The spec's values with each table's suite in place of its file's name; reports suites that can't be used.

    Args:
        document: The spec.
        argument_problems: Finds what is wrong with the arguments of expectations. None for a stored spec, whose suites
            were checked when it was staged and are checked again before they are evaluated.
    """
    values: dict[str, Any] = document.values
    contract = values["contract"]
    tables = contract.get("tables")
    if not isinstance(tables, dict):
        return values
    if argument_problems:
        argument_problems = _with_parameters(argument_problems, [str(name) for name in tables])
    inlined = {
        name: {**table, "suite": _suite(document, name, table["suite"], argument_problems)}
        if isinstance(table, dict) and table.get("suite") is not None
        else table
        for name, table in tables.items()
    }
    return {**values, "contract": {**contract, "tables": inlined}}


def _with_parameters(argument_problems: ArgumentProblems, tables: Sequence[str]) -> ArgumentProblems:
    """Check an expectation's parameters first, then its arguments with an example of each value."""

    def problems(arguments: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        wrong = list(parameter_problems(arguments, names(tables)))
        # A wrong parameter has no value to fill in.
        return wrong or argument_problems(fill(arguments, examples(tables)))

    return problems


def _suite(
    document: ParsedDocument, table: str, suite: object, argument_problems: ArgumentProblems | None
) -> dict[str, Any] | None:
    loc: Loc = ("contract", "tables", table, "suite")
    if not isinstance(suite, list):
        return _read_or_checked(document, loc, table, suite, argument_problems)
    if not 1 <= len(suite) <= MOST_SUITES:
        document.report(loc, f"must have 1 to {MOST_SUITES} suites, not {len(suite)}")
        return None
    parts = [
        _read_or_checked(document, (*loc, index), table, part, argument_problems) for index, part in enumerate(suite)
    ]
    return _joined(table, [part for part in parts if part is not None])


def _joined(table: str, suites: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One suite with the expectations of all, in their order; of other keys, a later suite's count."""
    together = {key: value for suite in suites for key, value in suite.items()}
    expectations = [expectation for suite in suites for expectation in suite["expectations"]]
    return {**together, "name": table, "expectations": expectations}


def _read_or_checked(
    document: ParsedDocument, loc: Loc, table: str, suite: object, argument_problems: ArgumentProblems | None
) -> dict[str, Any] | None:
    if isinstance(suite, str):
        return _from_file(document, loc, table, suite, argument_problems)
    if isinstance(suite, dict):
        return _checked(document, loc, table, suite, argument_problems)
    document.report(loc, "must be a suite's file, the suite itself, or a list of these")
    return None


def _from_file(
    document: ParsedDocument, loc: Loc, table: str, name: str, argument_problems: ArgumentProblems | None
) -> dict[str, Any] | None:
    try:
        file = read_beside(document, name)
    except UnreadableDocument as error:
        document.report(loc, str(error))
        return None
    suite = None
    if isinstance(file.values, dict):
        suite = _checked(file, (), table, file.values, argument_problems)
    elif not file.problems:
        file.report((), "is not a suite: a suite is a mapping with `name` and `expectations`")
    document.problems.extend(file.problems)
    document.places.setdefault(table, []).extend(file.places.get(table, ()))
    return suite


def _checked(
    document: ParsedDocument, loc: Loc, table: str, suite: dict[str, Any], argument_problems: ArgumentProblems | None
) -> dict[str, Any]:
    """The suite without empty values and Great Expectations' own ids, so that equal suites are written alike."""
    check(document, suite, SuiteSpec, loc)
    expectations = suite.get("expectations")
    items = expectations if isinstance(expectations, list) else []
    document.places.setdefault(table, []).extend(
        document.place((*loc, "expectations", index)) for index, item in enumerate(items) if isinstance(item, dict)
    )
    if argument_problems:
        for index, item in enumerate(items):
            if isinstance(item, dict):
                _report_expectation(document, (*loc, "expectations", index), item, argument_problems)
    return {
        "name": table,
        **_canonical_values(suite),
        "expectations": [canonical_expectation(item) for item in items if isinstance(item, dict)],
    }


def canonical_expectation(item: dict[str, Any]) -> dict[str, Any]:
    """An expectation without empty values and Great Expectations' own id."""
    return {"kwargs": {}, **_canonical_values(item)}


def check_expectation(
    document: ParsedDocument, loc: Loc, item: Mapping[str, Any], argument_problems: ArgumentProblems | None
) -> None:
    """Report what is wrong with one expectation; its arguments only with `argument_problems`."""
    check(document, item, ExpectationSpec, loc)
    if argument_problems:
        _report_expectation(document, loc, item, argument_problems)


def _report_expectation(
    document: ParsedDocument, loc: Loc, item: Mapping[str, Any], argument_problems: ArgumentProblems
) -> None:
    """Report an unknown expectation, and its unknown, missing and forbidden arguments."""
    kind, arguments = item.get("type"), item.get("kwargs", {})
    known = vocabulary.expectations()
    # The model reports wrong types. Where Great Expectations is not installed, no name can be called wrong.
    if not isinstance(kind, str) or not isinstance(arguments, dict) or not known:
        return
    if kind not in known:
        # A word of another file than a suite is not repeated.
        name = f" {kind!r}" if "expect" in kind.lower() else " of this type"
        document.report((*loc, "type"), f"there is no expectation{name}: {did_you_mean(kind, known)}")
        return
    allowed = vocabulary.arguments(kind)
    # An empty list means that the arguments are unknown, not that there are none.
    for name in arguments if allowed else ():
        if name not in allowed:
            document.report((*loc, "kwargs", name), f"{kind} has no such argument: {did_you_mean(name, allowed)}")
    for name in vocabulary.required(kind):
        if name not in arguments:
            document.report((*loc, "kwargs"), f"{kind} lacks the argument {name!r}")
    for name, problem in argument_problems(arguments):
        document.report((*loc, "kwargs", name), problem)


def expectation_name(table: str, position: int) -> str:
    """How messages call an expectation of a table's suite, counted from 0 as in the key of a problem."""
    return f"table {table}: expectations[{position}]"


def doubtful_columns(tables: Mapping[str, TableSpec]) -> Iterator[tuple[Loc, str]]:
    """The columns that a suite or `time` names and the table does not declare though it declares some, each once."""
    for name, table in tables.items():
        loc: Loc = ("contract", "tables", name)
        named = {table.time: (*loc, "time")} if table.time else {}
        for position, item in enumerate((table.suite or {}).get("expectations") or []):
            for column in _columns_of(item.get("kwargs") or {}):
                named.setdefault(column, (*loc, "suite", "expectations", position))
        for column, place in named.items() if table.columns else ():
            if column not in table.columns:
                near = nearest(column, table.columns)
                hint = f"did you mean {near!r}?" if near else "add it to `columns:`"
                yield place, f"table {name} declares no column {column!r}: {hint}"


def _columns_of(arguments: Mapping[str, Any]) -> Iterator[str]:
    for key in ("column", "column_A", "column_B", "column_list"):
        value = arguments.get(key)
        yield from (name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str))


def _canonical_values(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "id" and value not in (None, {})}
