"""A suite is data: nothing that it says writes a file, opens a forbidden one, connects or runs code."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from prefect_stagegate.errors import SpecError, ValidationError
from prefect_stagegate.model import Entry, Evidence, Validation
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.engines.duckdb_dialect import FOLDERS, Refused, register
from prefect_stagegate.validations.worker import child, landlock
from prefect_stagegate.validations.worker.confinement import NOT_CONFINED, ONE_THREAD, VARIABLES, environment
from prefect_stagegate.validations.worker.judge import BadSuites, judge_tables
from prefect_stagegate.validations.worker.process_limits import ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, TableJob, TableReport

DAYS = pd.to_datetime(["2013-01-01", "2013-06-01", "2013-12-31"]).tz_localize("America/New_York")
ROWS = pd.DataFrame({"x": [1, 2, 3], "name": ["a", "b", "c"], "at": DAYS})

Judge = Callable[..., TableReport]


def query(sql: str) -> dict[str, Any]:
    return {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": sql}}


def workspace(condition: object, **kwargs: Any) -> dict[str, Any]:
    kwargs = {"column": "x", "min_value": 0, "row_condition": condition, **kwargs}
    return {"type": "expect_column_values_to_be_between", "kwargs": kwargs}


@pytest.fixture
def view(tmp_path: Path) -> Path:
    """A version of one file; `secret.txt` and `target` lie beside it, where no suite may reach."""
    folder = tmp_path / "view"
    folder.mkdir()
    ROWS.to_parquet(folder / "t.parquet", index=False)
    (tmp_path / "secret.txt").write_text("hush")
    return folder


@pytest.fixture
def judge(view: Path, tmp_path: Path) -> Judge:
    """Judge the table in this process, which no Landlock holds: the engines' own limits are meant."""

    def run(engine: str, expectation: dict[str, Any]) -> TableReport:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        job = TableJob("t", engine, {"expectations": [expectation]}, str(view), ["t.parquet"])
        (report,) = judge_tables([job], scratch, print)
        return report

    return run


# ── SQL ─────────────────────────────────────────────────────────────────────────────────────────────────────────

FORBIDDEN = {
    "COPY (SELECT 1) TO '{target}'": "this is a COPY statement",
    "WITH w AS (COPY (SELECT 1) TO '{target}') FROM w": "its WITH holds a COPY statement",
    "SELECT * FROM t WHERE x IN (WITH w AS (COPY (SELECT 1) TO '{target}') FROM w)": "its WITH holds a COPY statement",
    "WITH w AS (DELETE FROM t RETURNING 1) FROM w": "its WITH holds a DELETE statement",
    "ATTACH '{target}'": "this is an ATTACH statement",
    "INSTALL httpfs": "this is a LOAD statement",
    "LOAD httpfs": "this is a LOAD statement",
    "PRAGMA threads=1": "this is a SET statement",
    "SET threads=1": "this is a SET statement",
    "SELECT 1; SELECT 2": "these are 2 statements",
    "SELECT 1) t; COPY (SELECT 1) TO '{target}'; SELECT * FROM (SELECT 1": "syntax error",
}


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_query_that_is_no_select_is_refused(judge: Judge, tmp_path: Path, sql: str) -> None:
    target = tmp_path / "target"
    with pytest.raises(BadSuites) as caught:
        judge("duckdb", query(sql.replace("{target}", str(target))))
    (problem,) = caught.value.args[0]
    assert problem.startswith("table t: expectations[0]: unexpected_rows_expectation: argument 'unexpected_rows_query'")
    assert FORBIDDEN[sql] in problem
    assert not target.exists()


@pytest.mark.parametrize(
    "call",
    [
        "read_text('{secret}')",
        "read_csv('{secret}', header=false)",
        "read_text('{view}/../secret.txt')",
        "glob('{folder}/*')",
        "read_text('http://127.0.0.1:1/x')",
    ],
)
def test_query_opens_nothing_but_the_version(judge: Judge, view: Path, tmp_path: Path, call: str) -> None:
    secret = tmp_path / "secret.txt"
    call = call.replace("{secret}", str(secret)).replace("{view}", str(view)).replace("{folder}", str(tmp_path))
    (judgement,) = judge("duckdb", query(f"SELECT * FROM {call}")).judgements
    assert judgement.verdict is ExpectationVerdict.ERRORED
    assert "a suite reads the files of its version only" in judgement.problem
    assert "hush" not in judgement.problem


def test_query_reads_other_files_of_its_version(judge: Judge, view: Path) -> None:
    (view / "known.csv").write_text("x\n1\n2\n3\n")
    sql = f"SELECT * FROM {{batch}} ANTI JOIN '{view}/known.csv' USING (x)"
    (judgement,) = judge("duckdb", query(sql)).judgements
    assert judgement.verdict is ExpectationVerdict.PASSED


def test_engine_answers_one_select_whoever_asks(view: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    url = sa.URL.create(
        register(), database=str(tmp_path / "scratch/x.duckdb"), query={FOLDERS: json.dumps([str(view)])}
    )
    with sa.create_engine(url).connect() as connection:
        assert connection.exec_driver_sql(f"SELECT count(*) FROM '{view}/t.parquet'").scalar() == 3
        with pytest.raises(Refused, match="this is a COPY statement"):
            connection.exec_driver_sql(f"COPY (SELECT 1) TO '{tmp_path}/scratch/target'")
        assert connection.exec_driver_sql("SELECT current_setting('lock_configuration')").scalar() is True


# ── conditions, schemas, types ──────────────────────────────────────────────────────────────────────────────────

CALL = "@pd.io.common.os.mkdir('{target}') == 0"


@pytest.mark.parametrize(
    "expectation",
    [
        workspace(CALL, condition_parser="pandas"),
        workspace(CALL),
        workspace({"type": "pass_through", "pass_through_filter": CALL}),
        workspace({"type": "and", "conditions": [{"type": "pass_through", "pass_through_filter": CALL}]}),
        workspace("name.to_csv('{target}') == 0", condition_parser="pandas"),
        workspace("x.__class__ == 0", condition_parser="pandas"),
    ],
)
def test_condition_that_calls_is_refused(judge: Judge, tmp_path: Path, expectation: dict[str, Any]) -> None:
    target = tmp_path / "target"
    with pytest.raises(BadSuites, match=r"row_condition.*a condition may only compare columns with values"):
        judge("pandas", json.loads(json.dumps(expectation).replace("{target}", str(target))))
    assert not target.exists()


def test_column_name_in_a_condition_runs_nothing(judge: Judge, tmp_path: Path) -> None:
    target = tmp_path / "target"
    name = f"x` == 1 or @pd.io.common.os.mkdir('{target}') == 0 or `x"
    condition = {"type": "comparison", "column": {"name": name}, "operator": ">", "parameter": 0}
    (judgement,) = judge("pandas", workspace(condition)).judgements
    assert judgement.verdict is ExpectationVerdict.ERRORED
    assert "a condition may only compare" in judgement.problem
    assert not target.exists()


@pytest.mark.parametrize("engine", ["duckdb", "pandas"])
@pytest.mark.parametrize(
    "condition",
    [
        {"type": "comparison", "column": {"name": "x"}, "operator": ">", "parameter": 1},
        {"type": "nullity", "column": {"name": "x"}, "is_null": False},
    ],
)
def test_conditions_that_compare_are_evaluated(judge: Judge, engine: str, condition: dict[str, Any]) -> None:
    (judgement,) = judge(engine, workspace(condition)).judgements
    assert judgement.verdict is ExpectationVerdict.PASSED


def test_pandas_conditions_that_compare_are_evaluated(judge: Judge) -> None:
    expectation = workspace("x > 2 and name == 'c'", condition_parser="pandas", min_value=3)
    (judgement,) = judge("pandas", expectation).judgements
    assert judgement.verdict is ExpectationVerdict.PASSED


def test_json_schema_fetches_no_other(judge: Judge) -> None:
    schema = {"properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}}
    kwargs = {"column": "name", "json_schema": schema}
    with pytest.raises(BadSuites, match="a JSON schema refers only to its own parts"):
        judge("pandas", {"type": "expect_column_values_to_match_json_schema", "kwargs": kwargs})


@pytest.mark.parametrize(
    "kind",
    ["os.system", "builtins:eval", "great_expectations.expectations.core.ExpectColumnToExist", "ExpectColumnToExist"],
)
def test_type_is_a_name_of_great_expectations_only(judge: Judge, kind: str) -> None:
    with pytest.raises(BadSuites, match="there is no such expectation"):
        judge("duckdb", {"type": kind, "kwargs": {"column": "x"}})


def test_meta_names_nothing_that_is_imported(judge: Judge) -> None:
    expectation = {"type": "expect_column_to_exist", "kwargs": {"column": "x"}}
    meta = {"module_name": "no.such.module", "class_name": "NoSuchClass", "renderer": "no.such:renderer"}
    (judgement,) = judge("duckdb", {**expectation, "meta": meta}).judgements
    assert judgement.verdict is ExpectationVerdict.PASSED


# ── the process that judges ─────────────────────────────────────────────────────────────────────────────────────

CONFINED = """
import json, os, socket, sys
from prefect_stagegate.validations.worker.confinement import confine
scratch, view, secret, port = sys.argv[1:]
held = confine(scratch, [view])
def tried(do):
    try:
        do()
    except OSError as error:
        return type(error).__name__
    return "done"
print(json.dumps({
    "held": held,
    "read version": tried(lambda: open(view + "/t.parquet").close()),
    "write scratch": tried(lambda: open(scratch + "/new", "w").close()),
    "read secret": tried(lambda: open(secret).close()),
    "read environment": tried(lambda: open("/proc/self/environ").close()),
    "write version": tried(lambda: open(view + "/t.parquet", "a").close()),
    "list root": tried(lambda: os.listdir("/")),
    "run": tried(lambda: os.posix_spawn("/bin/true", ["true"], {})),
    "connect": tried(lambda: socket.create_connection(("127.0.0.1", int(port)), 5).close()),
}))
"""
ALLOWED = {"read version", "write scratch"}


def test_landlock_leaves_version_and_scratch_only(view: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [tmp_path / "scratch", view, tmp_path / "secret.txt", server.getsockname()[1]]
        command = [sys.executable, "-c", CONFINED, *map(str, arguments)]
        tried = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    held, version = tried.pop("held"), landlock.version()
    if not version:
        assert held == NOT_CONFINED
        assert set(tried.values()) == {"done"}
        return
    assert held == f"Landlock {version}"
    open_ends = set() if version >= 4 else {"connect"}  # Landlock knows TCP from its version 4 on
    assert {name for name, outcome in tried.items() if outcome == "done"} == ALLOWED | open_ends


INTRUDER = """
import sys, types
from pathlib import Path
from prefect_stagegate.validations.worker import worker_messages as records
from prefect_stagegate.validations.worker import worker
def judge_tables(tables, scratch, progress):
    try:
        problem = Path({secret!r}).read_text()
    except OSError as error:
        problem = type(error).__name__
    verdict = records.ExpectationVerdict.FAILED
    yield records.TableReport("t", [records.Judgement("intrude", "x", "critical", verdict, problem)])
judge = types.ModuleType("judge")
judge.judge_tables, judge.BadSuites = judge_tables, type("BadSuites", (Exception,), {{}})
sys.modules["prefect_stagegate.validations.worker.judge"] = judge
worker._load_libraries = lambda: None
worker.main()
"""


@pytest.mark.usefixtures("no_kept_worker")
def test_worker_confines_what_judges(view: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = INTRUDER.format(secret=str(tmp_path / "secret.txt"))
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", script))
    job = TableJob("t", "duckdb", {}, str(view), ["t.parquet"])
    report = child.judge_in_child([job], dataset="d", limits=ValidationLimits(), progress=print)["t"]
    held = landlock.version() > 0
    assert report.judgements[0].problem == ("PermissionError" if held else "hush")
    assert report.sandbox == (f"Landlock {landlock.version()}" if held else NOT_CONFINED)


SLEEPER = """
import os, sys, time, types
from pathlib import Path
from prefect_stagegate.validations.worker import worker
def judge_tables(tables, scratch, progress):
    progress(str(os.getpid()))
    time.sleep(600)
    yield
judge = types.ModuleType("judge")
judge.judge_tables, judge.BadSuites = judge_tables, type("BadSuites", (Exception,), {})
sys.modules["prefect_stagegate.validations.worker.judge"] = judge
worker._load_libraries = lambda: None
worker.main()
"""


@pytest.mark.usefixtures("no_kept_worker")
def test_what_judges_ends_with_its_guard(view: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", SLEEPER))
    pids: list[str] = []
    with pytest.raises(ValidationError, match="not judged within 8 s"):
        child.judge_in_child(
            [TableJob("t", "duckdb", {}, str(view), ["t.parquet"])],
            dataset="d",
            limits=ValidationLimits(seconds=8),
            progress=pids.append,
        )
    status = Path("/proc", pids[0], "stat")
    deadline = time.monotonic() + 20
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX":
        assert time.monotonic() < deadline, "what judges outlived its guard"
        time.sleep(0.05)


def test_worker_knows_no_credentials() -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "hush", "PREFECT_API_KEY": "hush", "HOME": "/home/ann", "TZ": "UTC"}
    variables = environment(given, "/scratch")
    scratch = {"TMPDIR": "/scratch", "HOME": "/scratch"}
    assert variables == {"TZ": "UTC", "GX_ANALYTICS_ENABLED": "false", **scratch, **ONE_THREAD}
    assert "TZ" in VARIABLES


def contract(engine: str, *expectations: dict[str, Any]) -> ContractSpec:
    table = {"files": "*.parquet", "engine": engine, "suite": {"expectations": list(expectations)}}
    return ContractSpec.model_validate({"tables": {"t": table}})


def run(view: Path, engine: str, *expectations: dict[str, Any]) -> Validation:
    entries = [Entry("t.parquet", (view / "t.parquet").stat().st_size, "blake3:00")]
    return validate(view, entries, contract(engine, *expectations), dataset="d", digest="sha256:" + "0" * 64)


def expectations_of(validation: Validation) -> Evidence:
    (evidence,) = (evidence for evidence in validation.evidence if evidence.check == "expectations")
    return evidence


@pytest.mark.parametrize("engine", ["duckdb", "pandas"])
def test_evidence_says_what_held_the_worker(view: Path, engine: str) -> None:
    condition = workspace({"type": "nullity", "column": {"name": "x"}, "is_null": False})
    zoned = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "at"}}
    evidence = expectations_of(run(view, engine, condition, zoned))
    version = landlock.version()
    assert evidence.outcome.value == "pass"
    assert evidence.measured["sandbox"] == (f"Landlock {version}" if version else NOT_CONFINED)


def test_forbidden_query_is_a_mistake_of_the_contract(view: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"table t: expectations\[0\]: .*this is a COPY statement"):
        run(view, "duckdb", query(f"COPY (SELECT 1) TO '{tmp_path}/target'"))
    assert not (tmp_path / "target").exists()
