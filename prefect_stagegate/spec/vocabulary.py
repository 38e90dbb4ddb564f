"""The names that a contract may use: column types, and expectations with their arguments.

Great Expectations takes seconds to import, so its names are read from the JSON schemas that it ships. Another package
adds an expectation by an entry point, named after the expectation's type, that leads to its class:

    [project.entry-points."prefect_stagegate.expectations"]
    expect_column_values_to_be_airports = "my_package.expectations:ExpectColumnValuesToBeAirports"

Only the process that evaluates suites imports it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefect_stagegate.errors import did_you_mean

COLUMN_TYPES = (
    *("int", "float", "number", "decimal", "bool", "string", "binary", "date", "time", "timestamp", "duration"),
    *("list", "struct", "map", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "tinyint", "smallint", "bigint", "real", "double", "boolean", "varchar"),
)
"""The names of types under `columns:`; validations knows what each accepts."""
OTHER_NAMES = {
    **dict.fromkeys(("datetime", "datetime64", "datetime64[ns]", "timestamptz"), "timestamp"),
    **dict.fromkeys(("str", "object", "text", "char", "utf8"), "string"),
    "integer": "int",
    "long": "int64",
    "numeric": "decimal",
    "bytes": "binary",
    "blob": "binary",
    "timedelta": "duration",
    "interval": "duration",
    "array": "list",
    "dict": "struct",
}
"""What other tools call these types: names that resemble another type, or none."""
GROUP = "prefect_stagegate.expectations"
"""The entry points of expectations in other packages."""


def type_problem(name: str) -> str:
    """Say why `name` is no type of a contract; empty when it is one.

    >>> type_problem("double"), type_problem("doubel"), type_problem("datetime")
    ('', "unknown type 'doubel': did you mean 'double'?", "unknown type 'datetime': did you mean 'timestamp'?")
    """
    meant = OTHER_NAMES.get(name.lower())
    hint = f"did you mean {meant!r}?" if meant else did_you_mean(name, COLUMN_TYPES)
    return "" if name in COLUMN_TYPES else f"unknown type {name!r}: {hint}"


@cache
def expectations() -> Mapping[str, str]:
    """All expectations, each with the file that lists its arguments; empty where Great Expectations isn't installed."""
    folder = _schemas()
    if folder is None:
        return {}
    index = json.loads(folder.joinpath("index.json").read_bytes())
    listed = {name: str(folder / facts["schema_file"]) for name, facts in index["expectations"].items()}
    # Some of them have no schema, and those of other packages have none: their arguments are not checked here.
    return {**dict.fromkeys([*custom_expectations(), *index["documented_absent"]], ""), **listed}


def custom_expectations() -> Mapping[str, EntryPoint]:
    """The entry points of expectations in other packages, by the expectation's type."""
    # Sorted, so that with two packages for one type every node takes the same one.
    points = sorted(entry_points(group=GROUP), key=lambda point: point.value, reverse=True)
    return {point.name: point for point in points}


def arguments(expectation: str) -> Collection[str]:
    """The arguments of an expectation; empty when Great Expectations does not list them."""
    properties: dict[str, Any] = _schema(expectation).get("properties", {})
    return properties.keys()


def required(expectation: str) -> Sequence[str]:
    """The arguments that an expectation requires; empty when Great Expectations does not list them."""
    return tuple(_schema(expectation).get("required", ()))


@cache
def _schema(expectation: str) -> dict[str, Any]:
    file = expectations()[expectation]
    schema: dict[str, Any] = json.loads(Path(file).read_bytes()) if file else {}
    return schema


def _schemas() -> Path | None:
    """The folder of the schemas of all expectations; None where Great Expectations is not installed."""
    package = find_spec("great_expectations")
    folders = package.submodule_search_locations if package else None
    return Path(next(iter(folders)), "expectations", "core", "schemas") if folders else None
