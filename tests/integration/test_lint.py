"""`stagegate lint` finds mistakes of spec, suite and gates without data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.scenario import exit_code

SUITE = {"expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0}}]}


def write(folder: Path, **changes: Any) -> str:
    """A spec of a source that does not exist: nothing looks at it."""
    spec = {
        "stagegate": 1,
        "dataset": "things",
        "sources": [{"url": "s3://nowhere/things/"}],
        "contract": {"tables": {"t": {"files": "*.parquet", "suite": SUITE}}},
        "gates": {"pilot": {"require": ["expectations"]}, "production": {"extends": "pilot", "require": ["license"]}},
    }
    path = folder / "things.yaml"
    path.write_text(yaml.safe_dump(spec | changes))
    return str(path)


def test_lint_counts_what_it_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path)
    assert exit_code(["lint", spec]) == 0
    assert capsys.readouterr().out == "things: no problem in 1 source, 1 table, 1 expectation, 2 gates\n"
    assert exit_code(["lint", spec, "--json"]) == 0
    counts = {"dataset": "things", "sources": 1, "tables": 1, "expectations": 1, "gates": 2}
    assert json.loads(capsys.readouterr().out).items() >= counts.items()


def test_lint_warns_of_owners_without_an_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates = {"pilot": {"require": ["expectations", "cache_fit"]}}
    policy = {"change": {"approval": {"count": 1}}}
    spec = write(tmp_path, gates=gates, owners={"data": "d@example.org"}, policy=policy)
    assert exit_code(["lint", spec]) == 0
    shown = capsys.readouterr()
    assert "no problem in" in shown.out
    assert "owners.infra: no address is set" in shown.err
    assert "cache_fit" in shown.err
    assert "owners.data" not in shown.err
    assert exit_code(["lint", spec, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == 1
    owners = {"data": "d@example.org", "infra": "i@example.org"}
    assert exit_code(["lint", write(tmp_path, gates=gates, owners=owners, policy=policy)]) == 0
    assert capsys.readouterr().err == ""


def test_lint_warns_of_gates_that_anybody_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["lint", write(tmp_path)]) == 0
    assert "warning: policy.change: without it, anybody replaces the gates and promotes" in capsys.readouterr().err
    assert exit_code(["lint", write(tmp_path, policy={"change": {"approval": {"count": 1}}})]) == 0
    assert "policy.change" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gates", "warned"),
    [
        ({"pilot": {}, "production": {}}, ["production"]),
        ({"pilot": {"proof": "os-user"}, "production": {"proof": "os-user"}}, []),
        ({"production": {}, "release": {}}, ["production", "release"]),
        ({"pilot": {}, "release": {"signed": True, "keys": {"ines@example.org": "ed25519:" + "0f" * 32}}}, []),
    ],
)
def test_lint_warns_of_names_that_anybody_declares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gates: dict[str, Any], warned: list[str]
) -> None:
    required = {name: {"require": [{"approval": approval}]} for name, approval in gates.items()}
    policy = {"change": {"approval": {"count": 1}}}
    owners = {"governance": "g@example.org"}
    assert exit_code(["lint", write(tmp_path, gates=required, policy=policy, owners=owners), "--json"]) == 0
    told = [line.split(":")[0] for line in json.loads(capsys.readouterr().out)["warnings"]]
    assert told == [f"gates.{name}" for name in warned]


BETWEEN = "expect_column_values_to_be_between"
FIVE_MISTAKES = f"""\
expectations:
  - type: expect_column_values_to_not_be_null
    kwargs: {{column: x, mostly: 98}}
  - type: {BETWEEN}
    kwargs: {{column: x, min_value: twentynine}}
  - {{type: expect_column_values_to_be_in_set, kwargs: {{column: x, value_set: 5}}}}
  - {{type: {BETWEEN}, kwargs: {{column: x, min_value: 1, strict_min: maybe}}}}
  - {{type: {BETWEEN}, kwargs: {{column: 5, min_value: 1}}}}
"""


def test_lint_says_each_wrong_argument_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The spec loads: only Great Expectations knows what its arguments may be."""
    (tmp_path / "t.yaml").write_text(FIVE_MISTAKES)
    tables = {"t": {"files": "*.parquet", "suite": ["t.yaml"]}}
    assert exit_code(["lint", write(tmp_path, contract={"tables": tables})]) == 2
    lines = capsys.readouterr().err.splitlines()[1:]
    file, not_null = tmp_path / "t.yaml", "expect_column_values_to_not_be_null"
    in_set = "expect_column_values_to_be_in_set: argument 'value_set'"
    assert [line.strip() for line in lines] == [
        f"{file}:2: expectations[0]: {not_null}: argument 'mostly': must be at most 1, not 98; did you mean 0.98?",
        f"{file}:4: expectations[1]: {BETWEEN}: argument 'min_value': must be a number or a date, not 'twentynine'",
        f"{file}:6: expectations[2]: {in_set}: must be a list, not 5",
        f"{file}:7: expectations[3]: {BETWEEN}: argument 'strict_min': must be true or false, not 'maybe'",
        f"{file}:8: expectations[4]: {BETWEEN}: argument 'column': must be text, not 5",
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"gates": {"pilot": {"require": [{"approval": {"count": 3, "from": ["infra"]}}]}}},
            "gates.pilot.require: approval can never pass: 3 approvals needed from infra; people who may answer: 1",
        ),
        (
            {"policy": {"change": {"approval": {"count": 1, "from": ["governance"]}}}},
            "policy.change.approval: nobody can ever give it: 1 approval needed from governance; people who may answer",
        ),
        (
            {"policy": {"overrides": {"approval": {"count": 1, "from": ["governance"]}}}},
            "policy.overrides.approval: nobody can ever give it: 1 approval needed from governance; people who may",
        ),
        (
            {"license": "CC-BY-NC-4.0"},
            "gates.production.require: license can never pass: CC-BY-NC-4.0 is denied",
        ),
        (
            {"contract": {"tables": {"t": {"files": "wether/*.parquet", "suite": SUITE}}}},
            "contract.tables.t.files: no source has an `into:` that fills wether/*.parquet: did you mean 'weather/'?",
        ),
        (
            {"contract": {"files": [{"match": "*.png", "probes": ["nonempty"]}]}, "gates": {}},
            "contract.files[0].match: no source has an `into:` that fills *.png: known: weather/",
        ),
    ],
    ids=["too few people", "nobody", "nobody who overrules", "denied license", "no such folder", "folder left out"],
)
def test_lint_names_what_can_never_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], problem: str
) -> None:
    owners = {"infra": "i@example.org"}
    contract = {"tables": {"t": {"files": "weather/*.parquet", "suite": SUITE}}}
    sources = [{"url": "s3://nowhere/things/", "into": "weather/"}]
    good: dict[str, Any] = {"owners": owners, "contract": contract, "sources": sources}
    assert exit_code(["lint", write(tmp_path, **good)]) == 0
    capsys.readouterr()
    assert exit_code(["lint", write(tmp_path, **good | changes)]) == 2
    shown = capsys.readouterr().err
    assert re.search(rf"things\.yaml:\d+: {re.escape(problem)}", shown), shown


def test_lint_warns_of_columns_that_are_not_declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = {"expectations": [{"type": BETWEEN, "kwargs": {"column": "bill_dept_mm", "min_value": 0}}]}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(suite))
    table = {"files": "*.parquet", "suite": "t.yaml", "columns": {"bill_depth_mm": "double"}, "time": "seen"}
    assert exit_code(["lint", write(tmp_path, contract={"tables": {"t": table}})]) == 0
    warnings = capsys.readouterr().err
    near = "table t declares no column 'bill_dept_mm': did you mean 'bill_depth_mm'?"
    assert f"{tmp_path / 't.yaml'}:2: expectations[0]: {near}" in warnings
    assert "contract.tables.t.time: table t declares no column 'seen': add it to `columns:`" in warnings


@pytest.mark.parametrize(
    ("written", "meant"), [("datetime", "timestamp"), ("str", "string"), ("integer", "int"), ("doubel", "double")]
)
def test_wrong_type_leads_to_the_one_that_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, meant: str
) -> None:
    table = {"files": "*.parquet", "columns": {"x": written}}
    assert exit_code(["lint", write(tmp_path, contract={"tables": {"t": table}}, gates={})]) == 2
    assert f"unknown type {written!r}: did you mean {meant!r}?" in capsys.readouterr().err


def test_lint_names_a_check_that_never_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"t": {"files": "*.parquet"}}
    assert exit_code(["lint", write(tmp_path, contract={"tables": tables})]) == 2
    problem = "gates.pilot.require: expectations can never pass: no table of the contract has a suite"
    assert problem in capsys.readouterr().err
