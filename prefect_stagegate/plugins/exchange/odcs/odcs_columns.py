"""A property of an ODCS contract as a column: its type, and what is expected of its values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_stagegate.patterns import regex_problem
from prefect_stagegate.spec.vocabulary import COLUMN_TYPES
from prefect_stagegate.spec.yamltree import Loc

if TYPE_CHECKING:
    from open_data_contract_standard.model import SchemaProperty

Expectation = dict[str, Any]
"""One expectation as a suite writes it: `type`, `kwargs` and more."""

LOGICAL = {
    "string": "string",
    "date": "date",
    "timestamp": "timestamp",
    "time": "time",
    "number": "number",
    "integer": "int",
    "boolean": "bool",
    "object": "struct",
    "array": "list",
    "map": "map",
    "vector": "list",
}
"""Our type of each logical type of the standard."""
FORMATS = {
    **{f"{sign[0]}{width}": f"{sign}{width}" for sign in ("int", "uint") for width in (8, 16, 32, 64)},
    **{f"f{width}": f"float{width}" for width in (16, 32, 64)},
}
"""Our type of each `format` of numbers, which the standard writes as Rust does."""
PHYSICAL = {"text": "string", "char": "string", "character": "string", "integer": "int", "numeric": "decimal"} | {
    **dict.fromkeys(("datetime", "timestamptz"), "timestamp"),
    **dict.fromkeys(("bytea", "blob", "varbinary"), "binary"),
}
"""Our type of further names in databases, for a property that has no logical type."""
DESCRIBING = {"date": {"format"}, "timestamp": {"format"}, "time": {"format"}}
"""Options that say how a type is written as text, by logical type: the type is checked, whatever its text."""


class NoCounterpart(NamedTuple):
    """A promise that no expectation can state."""

    loc: Loc
    reason: str


def column_name(column: SchemaProperty) -> str:
    """The column's name in the data."""
    return column.physicalName or column.name or ""


def column_type(column: SchemaProperty) -> str:
    """Our type of a column; empty where the contract gives none that we know.

    A physical type counts where it is a name of ours; elsewhere it is that of the source's database.
    """
    if column.physicalType in COLUMN_TYPES:
        return column.physicalType
    if column.logicalType:
        written = (column.logicalTypeOptions or {}).get("format")
        numeric = column.logicalType in ("integer", "number")
        # As text: a contract may have a list there, and `get` raises for what can't be hashed.
        return FORMATS.get(str(written), LOGICAL[column.logicalType]) if numeric else LOGICAL[column.logicalType]
    # Length and scale, as in `numeric(10, 2)`, are no part of a type of ours.
    plain = re.sub(r"\(.*", "", column.physicalType or "").strip().lower()
    return plain if plain in COLUMN_TYPES else PHYSICAL.get(plain, "")


def column_expectations(column: SchemaProperty, loc: Loc) -> Iterator[Expectation | NoCounterpart]:
    """What a property promises apart from its quality rules; keys of the table are left to the caller."""
    name = column_name(column)
    if not column_type(column):
        yield {"type": "expect_column_to_exist", "kwargs": {"column": name}}
    if not column_type(column) and column.physicalType:
        yield NoCounterpart((*loc, "physicalType"), f"{column.physicalType!r} is no type that is known")
    if column.required:
        yield {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": name}}
    if column.unique:
        yield {"type": "expect_column_values_to_be_unique", "kwargs": {"column": name}}
    if column.enum:
        values = [item.value for item in column.enum]
        yield {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": name, "value_set": values}}
    yield from _options(column, name, (*loc, "logicalTypeOptions"))
    yield from _nested(column, loc)


def _options(column: SchemaProperty, name: str, loc: Loc) -> Iterator[Expectation | NoCounterpart]:
    """The expectations that the options of a logical type state."""
    options = dict(column.logicalTypeOptions or {})
    lengths = {"min_value": options.pop("minLength", None), "max_value": options.pop("maxLength", None)}
    if limits := {name: value for name, value in lengths.items() if value is not None}:
        yield {"type": "expect_column_value_lengths_to_be_between", "kwargs": {"column": name, **limits}}
    if bounds := _bounds(options):
        yield {"type": "expect_column_values_to_be_between", "kwargs": {"column": name, **bounds}}
    pattern = options.pop("pattern", None)
    if pattern and (problem := regex_problem(pattern)):
        yield NoCounterpart((*loc, "pattern"), problem)
    elif pattern:
        yield {"type": "expect_column_values_to_match_regex", "kwargs": {"column": name, "regex": pattern}}
    for option, value in options.items():
        if not _describes(column, option, value):
            yield NoCounterpart((*loc, option), "no expectation states this option")


def _bounds(options: dict[str, Any]) -> dict[str, Any]:
    """Take the least and greatest value out of the options, as the arguments of an expectation."""
    limits: dict[str, Any] = {}
    for side, option in (("min", "Minimum"), ("max", "Maximum")):
        inclusive, exclusive = options.pop(option.lower(), None), options.pop(f"exclusive{option}", None)
        # Where both are written, the exclusive one is kept: it is meant to be the narrower.
        if exclusive is not None:
            limits |= {f"{side}_value": exclusive, f"strict_{side}": True}
        elif inclusive is not None:
            limits[f"{side}_value"] = inclusive
    return limits


def _describes(column: SchemaProperty, option: str, value: object) -> bool:
    """Whether an option only describes, or is stated by the column's type already."""
    if option == "format" and column.logicalType in ("integer", "number"):
        return value in FORMATS
    return option in DESCRIBING.get(column.logicalType or "", ())


def _nested(column: SchemaProperty, loc: Loc) -> Iterator[NoCounterpart]:
    """What lies inside a column, and how it relates to others: no check looks there."""
    for key, part in (("properties", column.properties), ("items", column.items), ("map", column.map)):
        if part:
            yield NoCounterpart((*loc, key), "no check looks inside the values of a column")
    if column.relationships:
        yield NoCounterpart((*loc, "relationships"), "no check follows a relationship")
    if column.semanticType == "measure":
        yield NoCounterpart((*loc, "semanticType"), "a measure is computed, so it is no column of a file")
