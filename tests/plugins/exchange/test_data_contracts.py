"""Data contracts in the standard's form: judged on real rows, exported, and tried on old versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.jobs.gating.validate import validate
from tests.support.scenario import Scenario, exit_code

pytestmark = pytest.mark.timeout(300)
"""Great Expectations takes seconds to load, and a trial loads it for each contract and version."""


def write_contract(folder: Path, *columns: dict[str, Any], **keys: Any) -> str:
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "things", "version": "1.0.0", "status": "active"}
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump({**head, "schema": [{"name": "things", "properties": list(columns), **keys}]}))
    return str(path)


def promises(path: str, **keys: Any) -> dict[str, Any]:
    return {"odcs": path, "tables": {"things": {"files": "*.csv"}}, **keys}


def test_rules_of_a_data_contract_judge_real_rows(tmp_path: Path) -> None:
    rules = [
        {"metric": "nullValues", "mustBeLessThan": 20, "unit": "percent"},
        {"type": "sql", "query": "SELECT max({property}) FROM {object}", "mustBe": 9},
    ]
    columns = (
        {"name": "a", "logicalType": "integer", "required": True, "quality": rules},
        {"name": "d", "logicalType": "date", "logicalTypeOptions": {"minimum": "2026-01-02", "format": "yyyy-MM-dd"}},
    )
    things = Scenario(tmp_path, contract=promises(write_contract(tmp_path, *columns)))
    things.deliver("a,d\n9,2026-01-02\n,2026-01-02\n")
    (table,) = validate(things.node(), "things").tables
    assert {result.expectation.partition("(")[0]: result.verdict for result in table.expectations} == {
        "expect_column_values_to_not_be_null": "failed",
        "expect_column_values_to_be_between": "passed",
        "nullValues of a mustBeLessThan 20 percent": "failed",
        "query of a mustBe 9": "passed",
    }


def test_exported_contract_gives_the_same_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}}]}
    tables = {"things": {"files": "*.csv", "columns": {"a": "int"}, "suite": suite}}
    things = Scenario(tmp_path, contract={"tables": tables}, gates={"pilot": {"require": ["schema", "expectations"]}})
    written = things.spec_file()
    assert exit_code(["contract", "export", "--odcs", str(written), "--output", str(tmp_path / "contract.yaml")]) == 0
    things.deliver("a\n1\n")
    spec = things.spec_file("odcs.yaml", contract={"odcs": "contract.yaml"})
    assert exit_code(["validate", str(spec), *places(things)]) == 0
    # The policy is the adopted one, so the validation counts.
    assert "TRIAL" not in capsys.readouterr().out


def places(things: Scenario) -> list[str]:
    return ["--cache", str(things.on["cache"]), "--catalog", str(things.on["catalog"])]


def test_export_needs_a_form_and_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(Scenario(tmp_path).spec_file())
    assert exit_code(["contract", "export", spec]) == 2
    assert "Write --odcs" in capsys.readouterr().err
    assert exit_code(["contract", "export", "--odcs", spec, "-o", f"{spec}/x.yaml"]) == 2
    assert "can't be written" in capsys.readouterr().err
    assert exit_code(["contract", "export", "--odcs", spec]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["kind"] == "DataContract"


def test_lint_lists_what_a_partial_contract_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [{"type": "text", "description": "It is good."}]
    path = write_contract(tmp_path, {"name": "a", "logicalType": "integer", "quality": words})
    spec = str(Scenario(tmp_path, contract=promises(path, partial=True)).spec_file())
    assert exit_code(["lint", spec]) == 0
    assert "left out: " in (shown := capsys.readouterr().out)
    assert "contract.yaml:10: schema[0].properties[0].quality[0]: no check tests a rule in words" in shown
    assert exit_code(["lint", spec, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["left_out"]) == 1


def bounded(most: int) -> dict[str, Any]:
    kind = "expect_column_values_to_be_between"
    suite = {"expectations": [{"type": kind, "kwargs": {"column": "a", "max_value": most}}]}
    return {"tables": {"things": {"files": "*.csv", "suite": suite}}}


def test_contract_check_shows_what_a_change_would_have_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    things = Scenario(tmp_path, contract=bounded(9), gates={"pilot": {"require": ["expectations"]}})
    digests = [things.deliver(f"a\n{value}\n").digest for value in (2, 5)]
    changed = str(things.spec_file(contract=bounded(4)))
    assert exit_code(["contract", "check", changed, "--versions", "1", "--json", *places(things)]) == 1
    (trial,) = json.loads(capsys.readouterr().out)
    assert trial["digest"] == digests[1]
    assert {"subject": "expectations", "then": "pass", "now": "fail"} in trial["checks"]
    subject = "things.a: expect_column_values_to_be_between(max_value={})"
    verdicts = {item["subject"]: (item["then"], item["now"]) for item in trial["expectations"]}
    assert verdicts == {subject.format(4): ("absent", "failed"), subject.format(9): ("passed", "absent")}


def test_contract_check_records_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    things = Scenario(tmp_path, contract=bounded(9), gates={"pilot": {"require": ["expectations"]}})
    things.deliver("a\n2\n")
    before = sorted(tmp_path.joinpath("catalog").rglob("*"))
    assert exit_code(["contract", "check", str(things.spec_file(contract=bounded(4))), *places(things)]) == 0
    assert sorted(tmp_path.joinpath("catalog").rglob("*")) == before
    assert "TRIAL" in (shown := capsys.readouterr().out)
    assert "pass → pass         expectations" in shown
    assert "absent → passed       things.a: expect_column_values_to_be_between(max_value=4)" in shown


def test_contract_check_goes_on_past_a_version_that_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    things = Scenario(tmp_path, contract=bounded(9), gates={"pilot": {"require": ["expectations"]}})
    things.deliver("a\n2\n")
    things.deliver("a\n3\n")
    # Another node has neither version, and the source holds the newest alone.
    other = ["--cache", str(tmp_path / "other"), "--catalog", str(things.on["catalog"])]
    assert exit_code(["contract", "check", str(things.spec_file()), "--json", *other]) == 3
    newest, oldest = json.loads(capsys.readouterr().out)
    assert (newest["problem"], bool(newest["checks"]), bool(oldest["problem"])) == ("", True, True)


def test_contract_check_bounds_the_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    things = Scenario(tmp_path, contract=bounded(9))
    things.node()
    assert exit_code(["contract", "check", str(things.spec_file()), "--versions", "21", *places(things)]) == 2
    assert "Write --versions 1 to 20" in capsys.readouterr().err
