"""The JSON Schema: a validator agrees with the loader on what is right and wrong, and every key is explained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field

from prefect_stagegate.errors import SpecError
from prefect_stagegate.spec import ByteSize, Duration, KnownCheck, json_schema, load_spec


class Nothing(BaseModel):
    pass


class Freshness(BaseModel):
    warn: Duration = Field(default=timedelta(hours=12), description="Older than this is a warning.", examples=["12h"])
    fail: Duration = Field(default=timedelta(hours=24), description="Older than this is refused.", examples=["24h"])


class Space(BaseModel):
    free: ByteSize = Field(default=2**30, description="Bytes to leave free.", examples=["1GiB"])


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(description="The group's name.", examples=["infra"])


class Approval(BaseModel):
    count: int = Field(description="How many must approve.", examples=[1], ge=1)
    groups: list[Group] = Field(default=[], alias="from", description="Who may.", examples=[[{"name": "infra"}]])


class Planned(BaseModel):
    model_config = ConfigDict(extra="allow")


MODELS: dict[str, type[BaseModel]] = {
    "schema": Nothing,
    "nonempty": Nothing,
    "freshness": Freshness,
    "space": Space,
    "approval": Approval,
    "drift": Planned,
}
CHECKS = {name: KnownCheck(model) for name, model in MODELS.items()}
SCHEMA = json_schema(CHECKS)

RIGHT: dict[str, Any] = {
    "stagegate": 1,
    "dataset": "nycflights",
    "owners": {"data": "data-eng@example.org"},
    "license": "CC0-1.0",
    "runbook": "https://wiki.example.org/nycflights",
    "sources": [
        {
            "url": "s3://lake/flights/",
            "include": ["*.parquet"],
            "into": "flights/",
            "options": {"endpoint_url": "http://127.0.0.1:8333"},
            "credentials": "aws-credentials/onprem",
            "mirrors": [{"url": "file:///mnt/nas/flights/"}],
        },
        {"url": "file:///mnt/nas/reference/", "into": "reference/"},
    ],
    "contract": {
        "tables": {
            "flights": {
                "files": "flights/*.parquet",
                "suite": {"expectations": [{"type": "expect_table_row_count_to_be_between"}]},
                "engine": "duckdb",
                "columns": {"year": "int"},
                "time": "time_hour",
            }
        },
        "files": [{"match": "flights/*.parquet", "probes": ["parquet"]}],
    },
    "job": {"batch_size": 400, "sample_size": "114kB", "step_time": 0.224, "accelerators": 8},
    "max_failed_objects": 0,
    "gates": {
        "pilot": {"require": ["schema", "nonempty", {"approval": {"count": 1}}]},
        "production": {
            "extends": "pilot",
            "require": [
                {"freshness": {"warn": "12h", "fail": "24h", "severity": "blocking"}},
                {"approval": {"from": [{"name": "infra"}]}},
                {"space": {"free": "8GiB"}},
                {"drift": {"anything": 1}},
                {"nonempty": None},
            ],
        },
    },
}


def errors_of(spec: object) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(spec)]


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda spec: spec.pop(key)


def put(value: Any, *path: Any) -> Callable[[dict[str, Any]], object]:
    def change(spec: Any) -> None:
        for part in path[:-1]:
            spec = spec[part]
        spec[path[-1]] = value

    return change


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_right_spec_is_right_to_both() -> None:
    assert errors_of(RIGHT) == []
    load_spec(RIGHT, known_checks=CHECKS)


def test_a_suite_may_be_a_file_s_name() -> None:
    spec = copy.deepcopy(RIGHT)
    spec["contract"]["tables"]["flights"]["suite"] = "suites/flights.yaml"

    assert errors_of(spec) == []


def test_what_the_loader_writes_is_right_to_the_schema() -> None:
    assert errors_of(load_spec(RIGHT, known_checks=CHECKS).canonical()) == []


@pytest.mark.parametrize(
    "change",
    [
        without("stagegate"),
        without("dataset"),
        without("sources"),
        put(2, "stagegate"),
        put("1", "stagegate"),
        put("NYC", "dataset"),
        put("a" * 64, "dataset"),
        put("x", "licence"),
        put("x", "owners", "dta"),
        put("", "owners", "data"),
        put(-1, "max_failed_objects"),
        put("0", "max_failed_objects"),
        put([], "sources"),
        put("data/", "sources", 0),
        put("", "sources", 0, "url"),
        put(["*"], "sources", 0, "inclde"),
        put("*", "sources", 0, "include"),
        put(["/x"], "sources", 0, "include"),
        put(["a/../b"], "sources", 0, "include"),
        put(["a\\b"], "sources", 0, "exclude"),
        put("../up", "sources", 0, "into"),
        put("/top", "sources", 0, "into"),
        put("onprem", "sources", 0, "credentials"),
        put({}, "sources", 0, "mirrors", 0),
        put("dukdb", "contract", "tables", "flights", "engine"),
        put(7, "contract", "tables", "flights", "suite"),
        put({"name": "x"}, "contract", "tables", "flights", "suite"),
        put("crit", "contract", "tables", "flights", "suite", "expectations", 0, "severity"),
        put(["parket"], "contract", "files", 0, "probes"),
        put([], "contract", "files", 0, "probes"),
        put({"require": ["schema"]}, "gates", "latest"),
        put({"require": ["schema"]}, "gates", "Pilot"),
        put(["schma"], "gates", "pilot", "require"),
        put([{"schma": {}}], "gates", "pilot", "require"),
        put([{"schema": {}, "nonempty": {}}], "gates", "pilot", "require"),
        put([{"freshness": {"fial": "1h"}}], "gates", "pilot", "require"),
        put([{"freshness": {"fail": 12}}], "gates", "pilot", "require"),
        put([{"freshness": {"fail": "soon"}}], "gates", "pilot", "require"),
        put([{"freshness": {"severity": "blocker"}}], "gates", "pilot", "require"),
        put([{"approval": {"count": 0}}], "gates", "pilot", "require"),
        put([{"approval": {"count": 1, "groups": []}}], "gates", "pilot", "require"),
        put([{"approval": {"count": 1, "from": [{"nam": "infra"}]}}], "gates", "pilot", "require"),
        put([{"space": {"free": "much"}}], "gates", "pilot", "require"),
        put([{"space": 7}], "gates", "pilot", "require"),
        put([7], "gates", "pilot", "require"),
        put("schema", "gates", "pilot", "require"),
    ],
)
def test_a_wrong_spec_is_wrong_to_both(change: Callable[[dict[str, Any]], object]) -> None:
    spec = copy.deepcopy(RIGHT)
    change(spec)

    assert errors_of(spec)
    with pytest.raises(SpecError):
        load_spec(spec, known_checks=CHECKS)


def described(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key that the schema names, with what it says of it."""
    for name, value in schema.get("properties", {}).items():
        yield name, value
    for value in schema.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from described(inner)


def test_every_key_is_described_with_an_example() -> None:
    definitions = SCHEMA["$defs"]
    checks = set(CHECKS)

    for name, value in described(SCHEMA):
        target = definitions[value["$ref"].rpartition("/")[2]] if set(value) == {"$ref"} else value
        assert target.get("description"), name
        assert target.get("examples") or name in checks, name


def test_mappings_are_closed_except_options_and_free_text() -> None:
    def open_ones(schema: Any, path: str = "") -> Iterator[str]:
        if isinstance(schema, dict):
            if (
                schema.get("type") in ("object", ["object", "null"])
                and schema.get("additionalProperties", True) is True
            ):
                yield path
            for key, value in schema.items():
                yield from open_ones(value, f"{path}/{key}" if key not in ("properties", "$defs", "items") else path)
        elif isinstance(schema, list):
            for item in schema:
                yield from open_ones(item, path)

    assert {path.strip("/").replace("/anyOf", "") for path in open_ones(SCHEMA)} == {
        "SourceSpec/options",
        "MirrorSpec/options",
        "SuiteSpec/meta",
        "ExpectationSpec/meta",
        "ExpectationSpec/kwargs",
        "GateSpec/require/drift",
    }


def test_schema_lists_checks_parameters_and_written_defaults() -> None:
    names, with_parameters = SCHEMA["$defs"]["GateSpec"]["properties"]["require"]["items"]["anyOf"]

    assert names == {"enum": sorted(CHECKS)}
    assert list(with_parameters["properties"]) == list(CHECKS)
    assert with_parameters["properties"]["freshness"]["properties"]["fail"] == {
        "default": "1d",
        "description": "Older than this is refused.",
        "examples": ["24h"],
        "pattern": "^[0-9]{1,10}[smhdw]$",
        "type": "string",
    }


def test_the_order_of_checks_in_the_registry_is_the_schema_s_own() -> None:
    assert json_schema(CHECKS) == json_schema(dict(CHECKS)), "the schema is committed, so it must not waver"
