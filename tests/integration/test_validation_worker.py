"""The process that judges: kept for the next validation, bounded, and reported with its reason when it dies."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from great_expectations.core import ExpectationValidationResult

from prefect_stagegate.errors import SpecError, UsageError, ValidationError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Outcome
from prefect_stagegate.validations.worker import child
from prefect_stagegate.validations.worker.judgements import error_of
from prefect_stagegate.validations.worker.process_limits import GIB, ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import TableJob, TableReport
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

POSITIVE = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0}}
Judge = Callable[..., TableReport]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Judge a table of one file in a real worker."""

    def run(*expectations: dict[str, Any], rows: int = 3, engine: str = "duckdb", **limits: Any) -> TableReport:
        view = tmp_path / "view"
        view.mkdir(exist_ok=True)
        pd.DataFrame({"x": np.random.default_rng(1).permutation(rows)}).to_parquet(view / "t.parquet", index=False)
        job = TableJob("t", engine, {"expectations": list(expectations or (POSITIVE,))}, str(view), ["t.parquet"])
        return child.judge_in_child([job], dataset="d", limits=ValidationLimits(**limits), progress=lambda _: None)["t"]

    return run


def kept() -> child.WorkerProcess:
    (worker,) = child._idle
    return worker


# ── one worker for many validations ─────────────────────────────────────────────────────────────────────────────


def test_next_validation_takes_the_same_worker_and_no_import(judge: Judge) -> None:
    judge()
    worker = kept()
    began = time.monotonic()
    report = judge(rows=5)
    assert kept() is worker
    assert time.monotonic() - began < 4
    assert report.judgements[0].verdict == "passed"
    threads = list(Path(f"/proc/{worker.process.pid}/task").iterdir())
    assert len(threads) == 1, "a fork of a process with threads may hang"


def test_mistakes_in_suites_keep_the_worker(judge: Judge) -> None:
    judge()
    worker = kept()
    with pytest.raises(SpecError, match="expect_nothing"):
        judge({"type": "expect_nothing_at_all", "kwargs": {}})
    assert kept() is worker
    assert judge().judgements[0].verdict == "passed"


def test_job_of_a_kept_worker_opens_only_its_own_version(judge: Judge, tmp_path: Path) -> None:
    first = judge()
    other = tmp_path / "other"
    other.mkdir()
    pd.DataFrame({"x": [1]}).to_parquet(other / "t.parquet")
    query = f"SELECT * FROM '{tmp_path}/view/t.parquet'"
    stolen = {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": query}}
    job = TableJob("t", "duckdb", {"expectations": [stolen]}, str(other), ["t.parquet"])
    report = child.judge_in_child([job], dataset="d", limits=ValidationLimits(), progress=print)["t"]
    assert report.sandbox == first.sandbox
    assert report.judgements[0].verdict == "errored"


@pytest.mark.system
@pytest.mark.usefixtures("no_kept_worker")
def test_another_environment_takes_another_worker(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    judge()
    worker = kept()
    monkeypatch.setenv("TZ", "America/New_York")
    judge()
    assert kept() is not worker
    assert worker.process.poll() == 0


@pytest.mark.system
@pytest.mark.usefixtures("no_kept_worker")
def test_idle_worker_ends_by_itself(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "IDLE_SECONDS", 1)
    judge()
    worker = kept()
    assert worker.process.wait(20) == 0
    judge()
    assert kept() is not worker


PROCESS = """
import os, sys
from prefect_stagegate.validations.worker.worker_messages import TableJob
from prefect_stagegate.validations.worker import child
from prefect_stagegate.validations.worker.process_limits import ValidationLimits
job = TableJob("t", "duckdb", {"expectations": []}, sys.argv[1], ["t.parquet"])
child.judge_in_child([job], dataset="d", limits=ValidationLimits(), progress=lambda _: None)
print(child._idle[0].process.pid, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
if os.fork() == 0:
    assert not child._idle
    os._exit(0)
os.wait()
"""


@pytest.mark.system
@pytest.mark.parametrize("how", ["end", "kill"])
def test_kept_worker_ends_with_its_process(judge: Judge, tmp_path: Path, how: str) -> None:
    judge()
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "view"), how]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert not done.stderr
    worker = Path("/proc", done.stdout.strip(), "cmdline")
    assert eventually(lambda: not (worker.exists() and worker.read_bytes()), 20), "the worker outlived its process"


# ── bounds, and deaths with their reasons ───────────────────────────────────────────────────────────────────────


def test_table_too_large_for_pandas_is_inconclusive(judge: Judge) -> None:
    report = judge(rows=10_000_000, engine="pandas", memory=420 << 20)
    (judgement,) = report.judgements
    assert (judgement.verdict, report.unreadable) == ("errored", ())
    assert judgement.problem.startswith("not evaluated: the table could not be read: ")
    assert "Raise STAGEGATE_VALIDATION_MEMORY" in judgement.fix


def test_spilling_ends_at_its_bound(judge: Judge) -> None:
    unique = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "x"}}
    (judgement,) = judge(unique, rows=4_000_000, memory=GIB, spill=1 << 20).judgements
    assert judgement.verdict == "errored"
    assert "Raise STAGEGATE_VALIDATION_MEMORY or STAGEGATE_VALIDATION_SPILL" in judgement.fix


def test_error_without_a_message_has_its_type() -> None:
    info = {"metric": {"raised_exception": True, "exception_message": "", "exception_traceback": "File x\nMemoryError"}}
    assert error_of(ExpectationValidationResult(success=False, result={}, exception_info=info)) == "MemoryError"


@pytest.mark.usefixtures("no_kept_worker")
def test_late_validation_is_told_with_the_setting(judge: Judge) -> None:
    with pytest.raises(ValidationError, match=r"not judged within 0\.5 s") as caught:
        judge(seconds=0.5)
    assert "STAGEGATE_VALIDATION_TIMEOUT" in caught.value.hint
    assert not child._idle


DYING = """
import os, resource, signal, sys, types
from prefect_stagegate.validations.worker import worker
def judge_tables(tables, scratch, progress):
    {death}
    yield
judge = types.ModuleType("judge")
judge.judge_tables, judge.BadSuites = judge_tables, type("BadSuites", (Exception,), {{}})
sys.modules["prefect_stagegate.validations.worker.judge"] = judge
worker._load_libraries = lambda: None
worker.main()
"""
DEATHS = {
    "os.kill(os.getpid(), signal.SIGKILL)": ("was killed (SIGKILL)", "out-of-memory killer"),
    "os.kill(os.getpid(), signal.SIGSEGV)": ("crashed with SIGSEGV", "says nothing about the data"),
    "os.abort()": ("crashed with SIGABRT", "says nothing about the data"),
    "sys.stderr.write('cannot allocate memory for thread-local data: ABORT'); os._exit(127)": (
        "needed more than its 1GiB of memory: cannot allocate",
        "STAGEGATE_VALIDATION_MEMORY",
    ),
    "bytearray(2 << 30)": ("needed more than its 1GiB of memory", "STAGEGATE_VALIDATION_MEMORY"),
    "sys.exit('no licence')": ("crashed with status 1: SystemExit: no licence", "says nothing about the data"),
}


@pytest.mark.usefixtures("no_kept_worker")
@pytest.mark.parametrize("death", DEATHS)
def test_death_is_told_with_its_reason(death: str, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", DYING.format(death=death)))
    problem, hint = DEATHS[death]
    with pytest.raises(ValidationError) as caught:
        judge(memory=GIB, seconds=60)
    assert problem in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.usefixtures("no_kept_worker")
def test_death_makes_the_check_inconclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Scenario(
        tmp_path,
        contract={"tables": {"t": {"files": "*.csv", "suite": {"expectations": [POSITIVE]}}}},
        gates={"pilot": {"require": ["expectations"]}},
    )
    here.deliver("x\n1\n")
    script = DYING.format(death="os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", script))
    (evidence,) = check(here.node(), here.dataset, "pilot").checks
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "killed (SIGKILL)" in evidence.summary
    assert "lower STAGEGATE_VALIDATION_MEMORY" in evidence.findings[0].fix


@pytest.mark.usefixtures("no_kept_worker")
def test_kernel_bounds_memory_files_and_cores(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = "resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE"
    death = f"sys.exit(str([resource.getrlimit(kind)[1] for kind in ({kinds})]))"
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", DYING.format(death=death)))
    with pytest.raises(ValidationError) as caught:
        judge(memory=2 * GIB, spill=GIB)
    files = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert f"[{2 * GIB}, {GIB}, {files}, 0]" in str(caught.value)


def test_missing_scratch_folder_is_told_with_its_setting(judge: Judge, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No scratch folder can be made in .*: No such file") as caught:
        judge(scratch=str(tmp_path / "absent"))
    assert "STAGEGATE_VALIDATION_SCRATCH" in caught.value.hint
