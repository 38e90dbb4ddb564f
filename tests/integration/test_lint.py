"""`stagegate lint` finds mistakes of spec, suite and gates without data."""

from __future__ import annotations

import json
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
    gates = {"pilot": {"require": ["expectations", {"approval": {"from": ["infra"]}}]}}
    policy = {"change": {"approval": {"count": 1}}}
    spec = write(tmp_path, gates=gates, owners={"data": "d@example.org"}, policy=policy)
    assert exit_code(["lint", spec]) == 0
    shown = capsys.readouterr()
    assert "no problem in" in shown.out
    assert "owners.infra: no address is set" in shown.err
    assert "approval" in shown.err
    assert "owners.data" not in shown.err
    assert exit_code(["lint", spec, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == 1
    owners = {"data": "d@example.org", "infra": "i@example.org"}
    assert exit_code(["lint", write(tmp_path, gates=gates, owners=owners, policy=policy)]) == 0
    assert capsys.readouterr().err == ""


def test_lint_warns_of_gates_that_anybody_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["lint", write(tmp_path)]) == 0
    assert "warning: policy.change: nobody has to agree to another policy" in capsys.readouterr().err
    assert exit_code(["lint", write(tmp_path, policy={"change": {"approval": {"count": 1}}})]) == 0
    assert "policy.change" not in capsys.readouterr().err


def test_lint_names_a_wrong_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The spec loads: only Great Expectations knows what its arguments may be."""
    wrong = {"type": "expect_column_max_to_be_between", "kwargs": {"column": "x", "max_value": "low"}}
    tables = {"t": {"files": "*.parquet", "suite": {"expectations": [wrong]}}}
    assert exit_code(["lint", write(tmp_path, contract={"tables": tables})]) == 2
    assert "table t, expectation 1" in (problem := capsys.readouterr().err)
    assert "argument 'max_value'" in problem


def test_lint_names_a_check_that_never_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"t": {"files": "*.parquet"}}
    assert exit_code(["lint", write(tmp_path, contract={"tables": tables})]) == 2
    problem = "gates.pilot.require: expectations can never pass: no table of the contract has a suite"
    assert problem in capsys.readouterr().err
