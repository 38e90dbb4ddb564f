"""The names that a contract may use: column types, and Great Expectations' expectations with their arguments.

Great Expectations takes seconds to import, so its names are read from the JSON schemas that it ships.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

COLUMN_TYPES = (
    *("int", "float", "number", "decimal", "bool", "string", "binary", "date", "time", "timestamp", "duration"),
    *("list", "struct", "map", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "tinyint", "smallint", "bigint", "real", "double", "boolean", "varchar"),
)
"""The names of types under `columns:`; validations knows what each accepts."""


@cache
def expectations() -> Mapping[str, str]:
    """Great Expectations' expectations, each with the file that lists its arguments; empty where it isn't installed."""
    folder = _schemas()
    if folder is None:
        return {}
    index = json.loads(folder.joinpath("index.json").read_bytes())
    listed = {name: str(folder / facts["schema_file"]) for name, facts in index["expectations"].items()}
    # Some expectations are documented without a schema; their arguments can't be checked.
    return {**dict.fromkeys(index["documented_absent"], ""), **listed}


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
