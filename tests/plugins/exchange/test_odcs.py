"""Contracts of the Open Data Contract Standard in a spec: what becomes of each promise, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.errors import MissingExtra, SpecError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.plugins.exchange.odcs import odcs_document
from prefect_stagegate.plugins.exchange.odcs.standard import schema_errors
from prefect_stagegate.spec import Spec

NOT_NULL = "expect_column_values_to_not_be_null"
UNIQUE = "expect_column_values_to_be_unique"


def contract(**keys: Any) -> dict[str, Any]:
    """A data contract with what the standard requires, and other keys."""
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "trips",
        "version": "1.0.0",
        "status": "active",
        **keys,
    }


def table(*properties: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"schema": [{"name": "trips", "properties": list(properties), **keys}]}


def column(name: str = "a", **keys: Any) -> dict[str, Any]:
    return {"name": name, "logicalType": "number", **keys}


def write(folder: Path, values: dict[str, Any], odcs: dict[str, Any] | None = None, **keys: Any) -> Path:
    """A spec whose contract is a file of the standard, and that file."""
    (folder / "contract.yaml").write_text(yaml.safe_dump(contract(**values), sort_keys=False))
    own = {"odcs": "contract.yaml", "tables": {"trips": {"files": "*.csv"}}, **(odcs or {})}
    spec = {"stagegate": 1, "dataset": "trips", "sources": [{"url": "data/"}], "contract": own, **keys}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def load(folder: Path, values: dict[str, Any], odcs: dict[str, Any] | None = None, **keys: Any) -> Spec:
    return read_spec(str(write(folder, values, odcs, **keys)))


def problems_of(folder: Path, values: dict[str, Any], odcs: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(folder, values, odcs)
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


def expectations(spec: Spec, name: str = "trips") -> list[tuple[str, dict[str, Any]]]:
    suite = spec.contract.tables[name].suite
    return [(item["type"], item["kwargs"]) for item in (suite or {"expectations": []})["expectations"]]


def expected(folder: Path, **keys: Any) -> list[tuple[str, dict[str, Any]]]:
    """The expectations of one column with these keys."""
    return expectations(load(folder, table(column(**keys))))


def rule(folder: Path, **keys: Any) -> tuple[str, dict[str, Any]]:
    """The expectation of one quality rule of one column."""
    (stated,) = expected(folder, quality=[keys])
    return stated


def test_columns_have_the_types_of_the_contract(tmp_path: Path) -> None:
    properties = [
        column("s", logicalType="string"),
        column("i", logicalType="integer"),
        column("f", logicalTypeOptions={"format": "f32"}),
        column("d", physicalType="double"),
        column("db", logicalType="string", physicalType="VARCHAR(18)"),
        {"name": "p", "physicalType": "varchar(2)"},
        column("t", logicalType="timestamp"),
        column("named", physicalName="col_7"),
    ]
    columns = load(tmp_path, table(*properties)).contract.tables["trips"].columns
    kinds = {"s": "string", "i": "int", "f": "float32", "d": "double", "db": "string", "p": "varchar"}
    assert columns == {**kinds, "t": "timestamp", "col_7": "number"}


def test_column_without_a_type_must_exist(tmp_path: Path) -> None:
    spec = load(tmp_path, table({"name": "a"}))
    assert (spec.contract.tables["trips"].columns, expectations(spec)) == (
        {},
        [("expect_column_to_exist", {"column": "a"})],
    )


def test_required_and_unique_become_expectations(tmp_path: Path) -> None:
    assert expected(tmp_path, required=True, unique=True) == [(NOT_NULL, {"column": "a"}), (UNIQUE, {"column": "a"})]


def test_a_primary_key_of_two_columns_is_unique_together(tmp_path: Path) -> None:
    keys = [column("b", primaryKey=True, primaryKeyPosition=2), column("a", primaryKey=True, primaryKeyPosition=1)]
    assert expectations(load(tmp_path, table(*keys))) == [
        (NOT_NULL, {"column": "b"}),
        (NOT_NULL, {"column": "a"}),
        ("expect_compound_columns_to_be_unique", {"column_list": ["a", "b"]}),
    ]


def test_a_promise_that_stands_twice_is_expected_once(tmp_path: Path) -> None:
    both = [{"metric": "nullValues", "mustBe": 0}]
    assert expected(tmp_path, required=True, primaryKey=True, quality=both) == [
        (UNIQUE, {"column": "a"}),
        (NOT_NULL, {"column": "a"}),
    ]


def test_options_become_bounds_lengths_and_patterns(tmp_path: Path) -> None:
    assert expected(tmp_path, logicalTypeOptions={"minimum": 0, "exclusiveMaximum": 5}) == [
        ("expect_column_values_to_be_between", {"column": "a", "min_value": 0, "max_value": 5, "strict_max": True})
    ]
    options = {"minLength": 2, "pattern": "^A"}
    assert expected(tmp_path, logicalType="string", logicalTypeOptions=options) == [
        ("expect_column_value_lengths_to_be_between", {"column": "a", "min_value": 2}),
        ("expect_column_values_to_match_regex", {"column": "a", "regex": "^A"}),
    ]


@pytest.mark.parametrize(
    ("keys", "expectation"),
    [
        ({"metric": "nullValues", "mustBe": 0}, (NOT_NULL, {"column": "a"})),
        ({"metric": "duplicateValues", "mustBeLessOrEqualTo": 0}, (UNIQUE, {"column": "a"})),
        (
            {"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": [1, None, 2]}},
            ("expect_column_values_to_be_in_set", {"column": "a", "value_set": [1, 2]}),
        ),
        (
            {"type": "custom", "engine": "great-expectations", "implementation": "type: expect_column_to_exist"},
            ("expect_column_to_exist", {"column": "a"}),
        ),
    ],
)
def test_a_rule_becomes_the_expectation_that_states_it(
    tmp_path: Path, keys: dict[str, Any], expectation: tuple[str, dict[str, Any]]
) -> None:
    assert rule(tmp_path, **keys) == expectation


@pytest.mark.parametrize(
    ("operator", "value", "limits"),
    [
        ("mustBe", 3, {"min_value": 3, "max_value": 3}),
        ("mustBeGreaterThan", 3, {"min_value": 4}),
        ("mustBeLessThan", 3, {"max_value": 2}),
        ("mustBeBetween", [3, 5], {"min_value": 3, "max_value": 5}),
    ],
)
def test_row_count_becomes_bounds(tmp_path: Path, operator: str, value: Any, limits: dict[str, int]) -> None:
    quality = [{"metric": "rowCount", operator: value}]
    assert expectations(load(tmp_path, table(quality=quality))) == [("expect_table_row_count_to_be_between", limits)]


def test_severity_and_description_of_a_rule_are_kept(tmp_path: Path) -> None:
    quality = [{"metric": "nullValues", "mustBe": 0, "severity": "Warning", "description": "No gaps."}]
    suite = load(tmp_path, table(column(quality=quality))).contract.tables["trips"].suite
    assert suite
    assert suite["expectations"][0] == {
        "type": NOT_NULL,
        "kwargs": {"column": "a"},
        "severity": "warning",
        "description": "No gaps.",
    }


def test_promises_without_counterpart_are_refused_at_their_lines(tmp_path: Path) -> None:
    quality = [
        {"type": "text", "description": "It is good."},
        {"type": "custom", "engine": "soda", "implementation": "x"},
    ]
    properties = [
        column("a", quality=quality, logicalTypeOptions={"multipleOf": 5}),
        column("l", logicalType="array", items={"logicalType": "string"}),
        column("p", logicalType="string", logicalTypeOptions={"pattern": "(?=x)"}),
    ]
    refused = problems_of(tmp_path, {**table(*properties), "slaProperties": [{"property": "retention", "value": 3}]})
    keys = [problem.split(": ")[1] for problem in refused]
    assert keys == [
        "schema[0].properties[0].quality[0]",
        "schema[0].properties[0].quality[1].engine",
        "schema[0].properties[0].logicalTypeOptions.multipleOf",
        "schema[0].properties[1].items",
        "schema[0].properties[2].logicalTypeOptions.pattern",
        "slaProperties[0]",
    ]
    assert all(problem.startswith("contract.yaml:") and "`partial: true`" in problem for problem in refused)


def test_partial_lists_what_it_leaves_out(tmp_path: Path) -> None:
    values = table(column(required=True, quality=[{"type": "text", "description": "It is good."}]))
    spec = load(tmp_path, values, {"partial": True})
    assert expectations(spec) == [(NOT_NULL, {"column": "a"})]
    (left_out,) = spec.left_out
    assert "schema[0].properties[0].quality[0]: no check tests a rule in words" in left_out
    assert "odcs" not in spec.canonical()["contract"]


@pytest.mark.parametrize(
    ("keys", "files"),
    [
        ({"physicalName": "trips/*.parquet"}, "trips/*.parquet"),
        ({"customProperties": [{"property": "stagegate", "value": {"files": "t/**"}}]}, "t/**"),
        ({"customProperties": [{"property": "stagegate", "value": "t.csv"}], "physicalName": "x/*.csv"}, "t.csv"),
    ],
)
def test_files_come_from_the_contract(tmp_path: Path, keys: dict[str, Any], files: str) -> None:
    assert load(tmp_path, table(column(), **keys), {"tables": {}}).contract.tables["trips"].files == files


def test_table_without_files_is_refused_with_the_key_to_write(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, table(column(), physicalName="prod.trips"), {"tables": {}})
    assert "write `contract.tables.trips.files` in the spec" in problem


def test_the_spec_adds_to_a_table_and_never_takes_away(tmp_path: Path) -> None:
    suite = {"expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "b"}}]}
    own = {"trips": {"files": "*.csv", "time": "b", "suite": suite}}
    spec = load(tmp_path, table(column(required=True)), {"tables": own})
    assert expectations(spec) == [(NOT_NULL, {"column": "a"}), ("expect_column_to_exist", {"column": "b"})]
    assert spec.contract.tables["trips"].time == "b"
    (problem,) = problems_of(tmp_path, table(column()), {"tables": {"trips": {"files": "*", "columns": {"a": "int"}}}})
    assert "contract.tables.trips.columns: stand in the data contract" in problem


def test_team_becomes_owners_and_the_spec_wins(tmp_path: Path) -> None:
    members = [
        {"username": "ada@example.org", "role": "Data Steward"},
        {"username": "bea@example.org", "role": "data"},
        {"username": "left@example.org", "role": "data", "dateOut": "2025-01-01"},
        {"username": "dpo@example.org", "role": "DPO"},
        {"username": "guest@example.org", "role": "Visitor"},
    ]
    spec = load(tmp_path, {**table(column()), "team": {"members": members}}, owners={"governance": "legal@example.org"})
    assert spec.owners == {"data": "ada@example.org, bea@example.org", "governance": "legal@example.org"}


def test_latency_becomes_freshness_of_the_lowest_gates(tmp_path: Path) -> None:
    levels = [{"property": "latency", "value": 4, "unit": "d", "element": "trips.at"}]
    gates = {
        "pilot": {"require": ["schema"]},
        "own": {"require": [{"freshness": {"fail": "2h", "warn": "1h"}}]},
        "above": {"extends": "own", "require": ["digest"]},
        "production": {"extends": "pilot", "require": ["digest"]},
    }
    at = column("at", logicalType="timestamp")
    spec = load(tmp_path, {**table(at), "slaProperties": levels}, gates=gates)
    ages = {
        target: requirement.params["fail"]
        for target in gates
        for requirement in spec.gate(target).requirements
        if requirement.check == "freshness"
    }
    assert ages == {"pilot": "4d", "own": "2h", "above": "2h", "production": "4d"}
    assert spec.contract.tables["trips"].time == "at"


@pytest.mark.parametrize(
    "level", [{"value": "soon", "unit": "d"}, {"value": 4, "unit": "m"}, {"value": -1, "unit": "d"}]
)
def test_latency_that_is_no_age_is_refused(tmp_path: Path, level: dict[str, Any]) -> None:
    values = {**table(column()), "slaProperties": [{"property": "latency", **level}]}
    assert "slaProperties[0]: needs a number and a unit" in problems_of(tmp_path, values)[0]


def test_wrong_arguments_are_refused_in_the_contract(tmp_path: Path) -> None:
    implementation = {"type": "expect_table_row_count_to_be_between", "kwargs": {"minValue": 1}}
    wrong = [
        {"type": "custom", "engine": "greatExpectations", "implementation": implementation},
        {"type": "sql", "query": "DROP TABLE trips", "mustBe": 0},
    ]
    first, second = problems_of(tmp_path, table(column(), quality=wrong))
    assert "schema[0].quality[0].kwargs.minValue" in first
    assert "did you mean 'min_value'?" in first
    assert "schema[0].quality[1].kwargs.unexpected_rows_query" in second


def test_a_file_that_breaks_the_standard_is_refused_at_its_line(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, {"schema": [{"name": "trips", "colour": "red"}]})
    assert problem.startswith("contract.yaml:7: schema[0]: breaks the standard's schema")
    (tmp_path / "contract.yaml").write_text("[1, 2]")
    spec = tmp_path / "spec.yaml"
    with pytest.raises(SpecError, match="is not a data contract"):
        read_spec(str(spec))


def test_missing_file_and_other_server_are_refused(tmp_path: Path) -> None:
    write(tmp_path, table(column()))
    for name, reason in (("gone.yaml", "does not exist"), ("https://example.org/c.yaml", "lies on another server")):
        spec = {"stagegate": 1, "dataset": "d", "sources": [{"url": "x/"}], "contract": {"odcs": name}}
        (tmp_path / "other.yaml").write_text(yaml.safe_dump(spec))
        with pytest.raises(SpecError, match=reason):
            read_spec(str(tmp_path / "other.yaml"))


def test_rule_without_a_type_and_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    quality = [{"type": "custom", "engine": "greatExpectations", "implementation": {"kwargs": {}}}]
    twice = {"schema": [{"name": "trips", "quality": quality}, {"name": "trips"}]}
    missing, double = problems_of(tmp_path, twice)
    assert "schema[0].quality[0].type: is required but missing" in missing
    assert "schema[1].name: another table is called 'trips', too" in double


def test_partial_must_be_true_or_false_and_have_a_contract(tmp_path: Path) -> None:
    assert "contract.partial: must be" in problems_of(tmp_path, table(column()), {"partial": "some"})[0]
    without = {"odcs": None, "partial": True}
    assert "`odcs` names none" in problems_of(tmp_path, table(column()), without)[0]


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_data_contract_standard.model", None)
    with pytest.raises(MissingExtra, match=r"prefect-stagegate\[odcs\]"):
        load(tmp_path, table(column()))


def test_export_is_valid_and_marks_keys_for_other_tools(tmp_path: Path) -> None:
    spec = load(tmp_path, table(column(required=True, unique=True)), owners={"data": "ada@example.org"})
    document = odcs_document(spec)
    assert schema_errors(document) == []
    (exported,) = document["schema"]
    assert exported["properties"] == [
        {"name": "a", "logicalType": "number", "physicalType": "number", "required": True, "unique": True}
    ]
    assert document["team"] == {"members": [{"username": "ada@example.org", "role": "data"}]}
