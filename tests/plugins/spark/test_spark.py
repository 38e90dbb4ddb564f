"""Spark judges in a process that opens no other files, runs nobody's code, and ends with its Java."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from prefect_stagegate.errors import ValidationError
from prefect_stagegate.model import Entry, Evidence
from prefect_stagegate.plugins.spark.java_rights import JAVA
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.worker import child, landlock
from prefect_stagegate.validations.worker.child import judge_in_child
from prefect_stagegate.validations.worker.confinement import NOT_CONFINED
from prefect_stagegate.validations.worker.process_limits import ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, TableJob, TableReport
from tests.support.parquet_footers import false_statistics
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ENGINES = ("duckdb", "spark")
POSITIVE: dict[str, Any] = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0}}


@pytest.fixture
def view(tmp_path: Path) -> Path:
    folder = tmp_path / "view"
    folder.mkdir()
    pd.DataFrame({"x": [1, 2, 3], "name": ["a", "b", "c"]}).to_parquet(folder / "t.parquet", index=False)
    (tmp_path / "secret.txt").write_text("hush")
    return folder


def judge(view: Path, *expectations: dict[str, Any], timeout: float = 250) -> TableReport:
    files = sorted(path.name for path in view.iterdir())
    rows = {file: pq.read_metadata(view / file).num_rows for file in files}
    job = TableJob("t", "spark", {"expectations": list(expectations)}, str(view), files, ["x", "name"], rows=rows)
    return judge_in_child([job], dataset="d", limits=ValidationLimits(seconds=timeout), progress=print)["t"]


def javas(scratch: str) -> Iterator[str]:
    """The processes whose command names this scratch folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "java" in command and scratch in command:
            yield command


def test_false_parquet_statistics_hide_no_row(tmp_path: Path) -> None:
    pd.DataFrame({"x": [100, -5, 7], "name": ["a", None, "b"]}).to_parquet(tmp_path / "t.parquet", index=False)
    file = tmp_path / "t.parquet"
    file.write_bytes(false_statistics(file.read_bytes(), -5, 0))
    condition = {"row_condition": 'col("x") < 0', "condition_parser": "great_expectations"}
    named = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "name", **condition}}
    report = judge(tmp_path, POSITIVE, named)
    assert [judgement.verdict for judgement in report.judgements] == [ExpectationVerdict.FAILED] * 2


def test_each_table_has_its_own_confinement(view: Path, tmp_path: Path) -> None:
    tables = {name: {"files": "*.parquet", "engine": name, "suite": {"expectations": [POSITIVE]}} for name in ENGINES}
    entries = [Entry("t.parquet", (view / "t.parquet").stat().st_size, "blake3:00")]
    contract = ContractSpec.model_validate({"tables": tables})
    site = tmp_path / "site"
    validation = validate(view, entries, contract, dataset="d", digest="sha256:" + "0" * 64, data_docs=site)
    index = (site / "index.html").read_text()
    assert all(name in index for name in ENGINES)
    (evidence,) = (item for item in validation.evidence if item.check == "expectations")
    assert isinstance(evidence, Evidence)
    version = landlock.version()
    held = [f"Landlock {version}", f"Landlock {version}{JAVA.note}"] if version else [NOT_CONFINED, JAVA.unconfined]
    assert (evidence.outcome.value, evidence.measured["sandbox"]) == ("pass", "; ".join(sorted(held)))


CONFINED = """
import json, os, socket, subprocess, sys
from prefect_stagegate.plugins.spark.java_rights import JAVA
from prefect_stagegate.validations.worker.confinement import confine
scratch, view, secret, port = sys.argv[1:]
confine(scratch, [view], JAVA)
def tried(do):
    try:
        do()
    except OSError as error:
        return type(error).__name__
    return "done"
print(json.dumps({
    "read version": tried(lambda: open(view + "/t.parquet").close()),
    "write scratch": tried(lambda: open(scratch + "/new", "w").close()),
    "read secret": tried(lambda: open(secret).close()),
    "write version": tried(lambda: open(view + "/t.parquet", "a").close()),
    "list root": tried(lambda: os.listdir("/")),
    "read secret by a program": "done" if subprocess.run(["cat", secret], capture_output=True).stdout else "refused",
    "run scratch": tried(lambda: os.posix_spawn(scratch + "/program", ["program"], {})),
    "run": tried(lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)),
    "connect": tried(lambda: socket.create_connection(("127.0.0.1", int(port)), 5).close()),
}))
"""


def test_spark_s_confinement_is_wider_in_two_ways_only(view: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "program").write_text("#!/bin/sh\n")
    (scratch / "program").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [scratch, view, tmp_path / "secret.txt", server.getsockname()[1]]
        command = [sys.executable, "-c", CONFINED, *map(str, arguments)]
        tried = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    done = {name for name, outcome in tried.items() if outcome == "done"}
    assert done == (set(tried) if not landlock.version() else {"read version", "write scratch", "run", "connect"})


def test_suite_can_not_call_java(view: Path, tmp_path: Path) -> None:
    """SQL goes to DuckDB, which has no `reflect`; conditions in Spark's SQL are not evaluated."""
    call = "reflect('java.lang.System', 'setProperty', 'a', 'b')"
    query = {
        "type": "unexpected_rows_expectation",
        "kwargs": {"unexpected_rows_query": f"SELECT {call} FROM {{batch}}"},
    }
    condition = {"row_condition": "x > 0 and name != ''", "condition_parser": "spark"}
    conditional = {**POSITIVE, "kwargs": {**POSITIVE["kwargs"], **condition}}
    first, second = sorted(judge(view, query, conditional).judgements, key=lambda judgement: judgement.expectation)
    assert (first.verdict, second.verdict) == (ExpectationVerdict.ERRORED, ExpectationVerdict.ERRORED)
    assert "may only compare columns" in first.problem
    assert "reflect" in second.problem
    assert second.engine == "duckdb"


def test_file_that_spark_would_skip_is_inconclusive(view: Path) -> None:
    pd.DataFrame({"x": [-1], "name": ["d"]}).to_parquet(view / "_hidden.parquet", index=False)
    (judgement,) = judge(view, POSITIVE).judgements
    assert judgement.verdict is ExpectationVerdict.ERRORED
    assert "_hidden.parquet has 1 row, and the engine reads 0" in judgement.problem


def test_without_java_the_table_is_inconclusive(view: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    (judgement,) = judge(view, POSITIVE).judgements
    assert judgement.verdict is ExpectationVerdict.ERRORED
    assert "install a Java 17 or 21" in judgement.problem


def test_clusters_token_is_in_no_kept_worker(view: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    monkeypatch.setenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", "hush")
    child.end_idle_workers()
    judge(view, POSITIVE)
    assert not child._idle
    files = ["t.parquet"]
    judge_in_child(
        [TableJob("t", "duckdb", {}, str(view), files)], dataset="d", limits=ValidationLimits(), progress=print
    )
    (worker,) = child._idle
    assert b"hush" not in Path(f"/proc/{worker.process.pid}/environ").read_bytes()


def test_timeout_ends_java_and_removes_its_files(view: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    condition = {"condition_parser": "great_expectations"}
    many = [
        {**POSITIVE, "kwargs": {**POSITIVE["kwargs"], "row_condition": f'col("x") > {number}', **condition}}
        for number in range(1000)
    ]
    with pytest.raises(ValidationError, match="not judged within 30 s"):
        judge(view, *many, timeout=30)
    assert eventually(lambda: not any(javas(str(tmp_path))), 20), "Java outlived the time-out"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("stagegate-")] == []
