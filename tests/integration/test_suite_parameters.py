"""Suites that compare a version with the accepted one and with its time of staging, as gates judge by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from prefect_stagegate.clock import moment
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence
from tests.support.scenario import Scenario

GROWS = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": "${previous.rows * 0.9}"}}
IN_THE_PAST = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "seen", "max_value": "${as_of}"}}
PLANES = {
    "type": "unexpected_rows_expectation",
    "kwargs": {"unexpected_rows_query": "SELECT * FROM {batch} WHERE n > ${rows.planes} OR seen > ${as_of}"},
}


def scenario(folder: Path, *suite: dict[str, Any], engine: str = "duckdb") -> Scenario:
    flights = {"files": "flights*", "engine": engine, "suite": {"expectations": list(suite)}}
    tables = {"flights": flights, "planes": {"files": "planes*"}}
    return Scenario(
        folder,
        contract={"tables": tables},
        gates={
            "pilot": {"require": ["schema", "expectations"]},
            "production": {"extends": "pilot", "require": ["digest"]},
        },
    )


def deliver(here: Scenario, rows: int, *, at: str = "2026-01-01T00:00", zone: str | None = None) -> None:
    times = pd.to_datetime([at] * rows).tz_localize(zone)
    pd.DataFrame({"n": range(rows), "seen": times}).to_parquet(here.nas / "flights.parquet", index=False)
    pd.DataFrame({"plane": range(100)}).to_parquet(here.nas / "planes.parquet", index=False)
    here.stage()


def expectations_of(decision: Decision) -> Evidence:
    return next(item for item in decision.checks if item.check == "expectations")


def test_first_version_is_not_compared_and_the_next_is(tmp_path: Path) -> None:
    here = scenario(tmp_path, GROWS, IN_THE_PAST)
    deliver(here, 100)

    first = expectations_of(check(here.node(), here.dataset, "pilot"))
    assert (first.outcome, first.measured["not_applicable"]) == ("pass", 1)
    assert first.summary == "1 of 2 expectations hold over 100 rows; 1 expectation is not applicable"
    assert [finding.problem for finding in first.findings] == [
        "not applicable: expect_table_row_count_to_be_between: "
        "${previous.rows} has no value: pilot names no other version"
    ]
    here.promote()

    deliver(here, 89)
    fewer = check(here.node(), here.dataset, "pilot")
    assert fewer.outcome is DecisionOutcome.REFUSED
    assert (
        "expect_table_row_count_to_be_between(min_value=90): observed 89" in expectations_of(fewer).findings[0].problem
    )
    assert expectations_of(fewer).measured["parameters"]["flights"]["previous.rows"] == 100

    deliver(here, 90)
    assert check(here.node(), here.dataset, "pilot").accepted


def test_validation_without_a_gate_spares_no_gate_the_comparison(tmp_path: Path) -> None:
    here = scenario(tmp_path, GROWS)
    deliver(here, 100)
    (evidence,) = (item for item in validate(here.node(), here.dataset).evidence if item.check == "expectations")
    assert evidence.outcome == "not-applicable"
    assert "stagegate check things --gate TARGET" in evidence.findings[0].problem
    here.promote("pilot")

    deliver(here, 10)
    assert validate(here.node(), here.dataset).passed
    assert check(here.node(), here.dataset, "pilot").outcome is DecisionOutcome.REFUSED


def test_version_that_another_target_names_is_not_compared(tmp_path: Path) -> None:
    here = scenario(tmp_path, GROWS)
    deliver(here, 100)
    here.promote()
    deliver(here, 95)
    here.promote("pilot")

    deliver(here, 88)
    assert expectations_of(check(here.node(), here.dataset, "pilot")).measured["parameters"] == {
        "flights": {"previous.rows": 95}
    }
    production = check(here.node(), here.dataset, "production")
    assert expectations_of(production).measured["parameters"] == {"flights": {"previous.rows": 100}}


@pytest.mark.parametrize("engine", ["duckdb", "pandas"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_time_of_staging_bounds_times_with_and_without_zones(tmp_path: Path, engine: str, zone: str | None) -> None:
    here = scenario(tmp_path, IN_THE_PAST, *([PLANES] if engine == "duckdb" else []), engine=engine)
    deliver(here, 5, zone=zone)
    past = check(here.node(), here.dataset, "pilot")
    assert past.accepted, expectations_of(past).findings
    staged = here.node().catalog.history(here.dataset, "latest")[0].at
    values = expectations_of(past).measured["parameters"]["flights"]
    assert values["as_of"] == staged
    assert moment(values["as_of"]).year >= 2026

    deliver(here, 5, at="2200-01-01T00:00", zone=zone)
    future = expectations_of(check(here.node(), here.dataset, "pilot"))
    assert (future.outcome, future.measured["errored"]) == ("fail", 0)


def test_another_value_is_counted_anew(tmp_path: Path) -> None:
    bound = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "n", "max_value": "${previous.rows}"}}
    here = scenario(tmp_path, bound)
    deliver(here, 4)
    here.promote("pilot")
    (here.nas / "flights.parquet").rename(here.nas / "flights-1.parquet")
    for rows, read in ((8, 2), (12, 1)):
        pd.DataFrame({"n": [1] * rows, "seen": pd.to_datetime(["2026-01-01"] * rows)}).to_parquet(
            here.nas / f"flights-{rows}.parquet", index=False
        )
        here.stage()
        measured = expectations_of(check(here.node(), here.dataset, "pilot")).measured
        assert measured["files_read"] == {"flights": read}
    here.promote("pilot")
    pd.DataFrame({"n": [30], "seen": pd.to_datetime(["2026-01-01"])}).to_parquet(here.nas / "flights-30.parquet")
    here.stage()
    evidence = expectations_of(check(here.node(), here.dataset, "pilot"))
    assert evidence.measured["parameters"] == {"flights": {"previous.rows": 24}}
    assert (evidence.outcome, evidence.measured["files_read"]) == ("fail", {"flights": 4})
