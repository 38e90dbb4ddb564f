"""Checks that read a version's rows and bytes: staged, queried where they lie, and never told too much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import open_records
from prefect_stagegate.gate import known_checks
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Evidence, Outcome, Version
from prefect_stagegate.spec import load_spec
from prefect_stagegate.workspace import Workspace
from tests.support.records import CountedRecords

MAIL = "ana@example.org"


class TripsNode:
    """One node, a folder as its source, and a gate that asks what a test wants to know."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nas = folder / "nas"
        self.here = self.other("cache")

    def other(self, cache: str) -> Workspace:
        return open_workspace(self._folder / cache, self._folder / "catalog")

    def spec(self, require: list[Any]) -> Any:
        return load_spec(
            {
                "stagegate": 1,
                "dataset": "trips",
                "sources": [{"url": str(self._nas)}],
                "contract": {"tables": {"trips": {"files": "trips/*.csv"}, "held": {"files": "held/*.csv"}}},
                "gates": {"pilot": {"require": require}, "production": {"extends": "pilot"}},
            },
            known_checks=known_checks(),
        )

    def deliver(self, require: list[Any], **files: str) -> Version:
        for name, text in files.items():
            file = self._nas / name / "1.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return stage(self.here, self.spec(require))

    def ask(self, name: str, workspace: Workspace | None = None, gate: str = "pilot") -> Evidence:
        decision = check(workspace or self.here, Address("trips"), gate)
        return next(result for result in decision.checks if result.check == name)


@pytest.fixture
def node(tmp_path: Path) -> TripsNode:
    return TripsNode(tmp_path)


def rows(start: int, count: int, kind: str = "taxi", step: float = 1.0) -> str:
    return "id,miles,kind\n" + "".join(f"{n},{n % 100 * step},{kind}\n" for n in range(start, start + count))


def test_duplicate_keys_and_splits_that_overlap_are_found(node: TripsNode) -> None:
    keys = {"keys": {"trips": ["id"], "held": ["id"]}, "splits": ["trips", "held"]}
    node.deliver([{"duplicates": keys}], trips=rows(0, 50), held=rows(50, 10))
    assert node.ask("duplicates").outcome is Outcome.PASS

    node.deliver([{"duplicates": keys}], held=rows(49, 10))
    result = node.ask("duplicates")
    assert (result.outcome, result.summary) == (
        Outcome.FAIL,
        "splits trips and held: they share 1 record; the smallest split has 10",
    )

    node.deliver([{"duplicates": keys}], held=rows(0, 50))
    assert any("share 1 file" in finding.problem for finding in node.ask("duplicates").findings)


def test_check_of_an_absent_column_or_table_is_inconclusive(node: TripsNode) -> None:
    for keys in ({"trips": ["ident"]}, {"trip": ["id"]}):
        node.deliver([{"duplicates": {"keys": keys}}], trips=rows(0, 5), held=rows(5, 5))
        result = node.ask("duplicates")
        assert result.outcome is Outcome.INCONCLUSIVE
        assert "ident" in result.summary or "Did you mean 'trips'" in result.findings[0].fix


def test_drift_is_measured_from_what_was_accepted(node: TripsNode) -> None:
    require = ["lineage", {"drift": {"rows": 100, "ignore": ["id"]}}]
    node.deliver(require, trips=rows(0, 500), held=rows(0, 500))
    assert node.ask("drift").outcome is Outcome.NOT_APPLICABLE
    promote(node.here, Address("trips"), "pilot")

    node.deliver(require, trips=rows(0, 500, step=1.01))
    assert node.ask("drift").outcome is Outcome.PASS
    node.deliver(require, trips=rows(0, 500, kind="bus", step=3))
    result = node.ask("drift")
    assert result.outcome is Outcome.FAIL
    assert {finding.subject for finding in result.findings} == {"trips.miles", "trips.kind"}
    assert result.measured["skipped"]["trips.id"] == "ignored by the gate"


def test_columns_are_compared_with_what_the_target_names(node: TripsNode) -> None:
    node.deliver(["schema"], trips=rows(0, 5), held=rows(5, 5))
    assert node.ask("schema").outcome is Outcome.PASS
    promote(node.here, Address("trips"), "pilot")

    node.deliver(["schema"], trips=rows(0, 9, step=0.5))
    assert node.ask("schema").outcome is Outcome.PASS, "text has numbers without a width"

    node.deliver(["schema"], trips=rows(0, 9).replace("miles", "milse"))
    result = node.ask("schema")
    assert result.outcome is Outcome.FAIL
    assert "table trips: column miles (number) is missing; pilot's sha256:" in result.summary
    assert result.summary.endswith("milse is new: renamed?")


def test_rollback_leaves_the_answers_about_columns_as_they_are(node: TripsNode) -> None:
    versions, answers = [], []
    for count in (5, 6, 7):
        versions.append(node.deliver(["schema"], trips=rows(0, count), held=rows(9, 5)))
        answers.append(node.ask("schema"))
        promote(node.here, Address("trips"), "pilot")
    rollback(node.here, Address("trips", ref="pilot"), to=versions[1].digest, reason="the third is wrong")

    decision = check(node.here, Address("trips", versions[1].digest), "pilot")

    (again,) = (result for result in decision.checks if result.check == "schema")
    assert again.binding["reference"] == versions[0].digest
    assert (again.at, again.seconds) == (answers[1].at, answers[1].seconds)


def test_drift_is_inconclusive_when_the_accepted_bytes_are_gone(node: TripsNode) -> None:
    require = [{"drift": {"rows": 100}}, "license"]
    node.deliver([*require[1:]], trips=rows(0, 500), held=rows(1000, 500))
    check(node.here, Address("trips"), "pilot")
    promote(node.here, Address("trips"), "pilot")
    node.deliver(require, trips=rows(0, 500, step=2))
    adopt(node.here, node.spec(require), reason="rows may drift")

    result = node.ask("drift", node.other("elsewhere"))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "stagegate stage trips@sha256:" in result.findings[0].fix


def test_the_smallest_class_is_judged(node: TripsNode) -> None:
    node.deliver(
        [{"balance": {"labels": {"trips": "kind"}, "warn": 0.2, "fail": 0.1}}],
        trips=rows(0, 95) + "95,1,bus\n" * 5,
        held=rows(0, 1),
    )
    result = node.ask("balance")
    assert (result.outcome, result.measured["trips.kind"]["share"]) == (Outcome.FAIL, 0.05)


def test_no_personal_data_leave_the_table_that_they_stand_in(node: TripsNode, tmp_path: Path) -> None:
    node.deliver(["pii"], trips=rows(0, 5) + f"6,1,{MAIL}\n", held=rows(0, 5))
    result = node.ask("pii")
    assert (result.outcome, result.findings[0].subject) == (Outcome.FAIL, "trips.kind")
    kept = [file for file in (tmp_path / "catalog").rglob("*.json") if MAIL in file.read_text()]
    assert kept == []


def test_files_of_no_table_were_not_looked_at(node: TripsNode) -> None:
    node.deliver(["pii"], trips=rows(0, 5), held=rows(0, 5), notes="some,text\n1,2\n")
    result = node.ask("pii")
    assert (result.outcome, result.findings[0].problem) == (Outcome.WARN, "not scanned: 1 file outside of all tables")


def test_a_flipped_byte_is_found_on_the_node_that_has_it_only(node: TripsNode) -> None:
    version = node.deliver(["cache_integrity"], trips=rows(0, 50), held=rows(0, 5))
    assert node.ask("cache_integrity").outcome is Outcome.PASS
    file = version.path / "trips/1.csv"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"taxi", b"taxy", 1))

    assert node.ask("cache_integrity").outcome is Outcome.PASS, "it holds a day"
    renamed, empty = on_node(node.here, "again"), on_node(node.other("elsewhere"), "empty")
    result = node.ask("cache_integrity", renamed)
    assert (result.outcome, result.findings[0].subject) == (Outcome.FAIL, "trips/1.csv")
    result = node.ask("cache_integrity", empty)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "stagegate stage trips@" in result.findings[0].fix


def on_node(workspace: Workspace, node: str) -> Workspace:
    return replace(workspace, settings=replace(workspace.settings, node=node))


def test_files_from_a_folder_have_weak_pins_only(node: TripsNode) -> None:
    node.deliver(["lineage"], trips=rows(0, 5), held=rows(0, 5))
    assert node.ask("lineage").outcome is Outcome.WARN


def test_decision_from_evidence_costs_the_same_after_many_checks(node: TripsNode) -> None:
    full = {"warn": 1.0, "fail": 1.0}
    node.deliver(["lineage", {"space": full}, "license", "owner", {"inodes": full}], trips=rows(0, 5), held=rows(0, 5))
    records = CountedRecords(open_records(node.here.catalog.url, {}))
    counted = replace(node.here, catalog=Catalog(records))
    costs = []
    for _ in range(6):
        check(counted, Address("trips"), "pilot")
        costs.append(records.calls.copy())
        records.calls.clear()
    assert costs[1:] == [costs[1]] * 5
    assert costs[1]["create"] == 1, "the decision; no evidence was gathered again"
