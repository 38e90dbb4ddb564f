"""Kept profiles stand for the bytes that they were computed from."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.model import Address, Evidence, Outcome
from prefect_stagegate.workspace import Workspace
from tests.support.scenario import Scenario

DRIFT = {"drift": {"rows": 100, "ignore": ["id"]}}
BALANCE = {"balance": {"labels": {"trips": "kind"}, "warn": 0.2, "fail": 0.1}}


def rows(count: int, kind: str = "taxi", step: float = 1.0) -> str:
    return "id,miles,kind\n" + "".join(f"{number},{number % 100 * step},{kind}\n" for number in range(count))


def scenario(folder: Path, *require: object) -> Scenario:
    contract = {"tables": {"trips": {"files": "*.csv"}}}
    return Scenario(folder, contract=contract, gates={"pilot": {"require": [*require]}})


def ask(workspace: Workspace, name: str) -> Evidence:
    decision = check(workspace, Address("things"), "pilot")
    return next(evidence for evidence in decision.checks if evidence.check == name)


def has(workspace: Workspace, digest: str) -> bool:
    return workspace.cache.views.path("things", digest) is not None


def test_drift_needs_no_bytes_of_a_profiled_version(tmp_path: Path) -> None:
    things = scenario(tmp_path, "schema", DRIFT)
    things.deliver(rows(500))
    accepted = things.promote("pilot")
    things.deliver(rows(500, kind="bus", step=3))
    assert ask(things.node(), "drift").outcome is Outcome.FAIL

    elsewhere = things.node(cache="elsewhere")
    things.deliver(rows(500, step=1.01))
    evidence = ask(elsewhere, "drift")

    assert (evidence.outcome, has(elsewhere, accepted)) == (Outcome.PASS, False)


def test_a_damaged_profile_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    things = scenario(tmp_path, "schema", DRIFT)
    things.deliver(rows(500))
    accepted = things.promote("pilot")
    things.deliver(rows(500, step=1.01))
    (record,) = (things.folder / "catalog").glob(f"datasets/things/profiles/{accepted.removeprefix('sha256:')}/*.json")
    record.write_text(record.read_text()[:-30])

    assert ask(things.node(), "drift").outcome is Outcome.PASS
    assert "The profile of table trips of things is not used" in caplog.text


def test_columns_that_pii_names_are_compared_by_their_rows(tmp_path: Path) -> None:
    things = scenario(tmp_path, "schema", {"pii": {"ignore": ["trips.kind"]}}, DRIFT)
    things.deliver(rows(500))
    things.promote("pilot")
    things.deliver(rows(500, kind="bus"))

    evidence = ask(things.node(), "drift")

    assert {finding.subject for finding in evidence.findings} == {"trips.kind"}
    kept = [path for path in (things.folder / "catalog").rglob("*.json") if {"parts", "profiles"} & {*path.parts}]
    assert kept
    assert not any('"taxi"' in path.read_text() for path in kept)


def test_balance_is_read_from_the_profile(tmp_path: Path) -> None:
    things = scenario(tmp_path, BALANCE)
    version = things.deliver(rows(90) + "".join(f"{number},0,bus\n" for number in range(15)))
    validate(things.node(), Address("things"))

    elsewhere = things.node(cache="elsewhere")
    evidence = ask(elsewhere, "balance")

    assert evidence.outcome is Outcome.WARN
    assert "bus" in evidence.findings[0].problem
    assert not has(elsewhere, version.digest)


def test_another_glob_of_the_contract_ends_a_profile(tmp_path: Path) -> None:
    things = scenario(tmp_path, BALANCE)
    (things.nas / "more.csv").write_text(rows(100, kind="bus"))
    things.deliver(rows(100))
    validate(things.node(), Address("things"))
    narrower = things.spec(contract={"tables": {"trips": {"files": "data.csv"}}})

    decision = check(things.node(), Address("things"), "pilot", spec=narrower)

    assert decision.checks[0].measured["trips.kind"]["classes"] == 1
