"""The tasks outside of any run, and what they share: how they run, what they tell, and what guards a flow."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import pickle
import socket
import threading
import warnings
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from prefect import Flow, Task, flow
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed

import prefect_stagegate.tasks as ours
from prefect_stagegate.errors import Cancelled, GateFailed, GateUndecided, SourceUnavailable, UnknownRef, UsageError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Evidence, Finding, Outcome
from prefect_stagegate.tasks import require_ready, stage_dataset
from prefect_stagegate.tasks._support.cancelling import requested
from prefect_stagegate.tasks._support.decision_states import FINDINGS, not_accepted, waiting
from prefect_stagegate.tasks._support.run_progress import live_progress
from prefect_stagegate.tasks._support.running import may_help, short_name

TASKS: list[Task[..., Any]] = [getattr(ours, name) for name in ours.__all__]
WHOLE_JOBS = [name for name in ours.__all__ if f"a{name}" in ours.__all__]
DIGEST = "sha256:" + "4f9c" * 16


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "nas").mkdir()
    for name, text in (("a.csv", "a,b\n1,2\n"), ("b.csv", "a,b\n3,4\n")):
        (tmp_path / "nas" / name).write_text(text)
        os.utime(tmp_path / "nas" / name, (0, 0))  # what was written just now is read again, to be sure
    return {"stagegate": 1, "dataset": "things", "sources": [{"url": str(tmp_path / "nas")}]}


def decision(outcome: DecisionOutcome, *checks: Evidence) -> Decision:
    return Decision("things", DIGEST, "pilot", outcome, checks, "sha256:p", "sha256:e", "2026-03-01T03:00:00Z")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_tasks_are_uncached_and_retried_once(task: Task[..., Any]) -> None:
    assert task.name in ours.__all__
    assert (task.cache_policy, task.retries, task.retry_condition_fn) == (NO_CACHE, 1, may_help)
    assert task.tags == {"stagegate"}


def test_a_task_with_other_options_stays_a_task_of_ours() -> None:
    changed = require_ready.with_options(retries=7)

    assert (type(changed), changed.retries, require_ready.retries) == (type(require_ready), 7, 1)


@pytest.mark.parametrize("name", WHOLE_JOBS)
def test_each_job_has_an_equal_async_twin(name: str) -> None:
    task, twin = getattr(ours, name), getattr(ours, f"a{name}")
    run_name = dict.fromkeys(inspect.signature(task.fn).parameters, "things")

    assert (task.isasync, twin.isasync, twin.name) == (False, True, f"a{name}")
    assert inspect.signature(twin.fn) == inspect.signature(task.fn)
    assert twin.fn.__doc__ == task.fn.__doc__
    assert twin.task_run_name(run_name) == task.task_run_name(run_name)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_tasks_take_cache_and_catalog_and_document_errors(task: Task[..., Any]) -> None:
    assert {"cache", "catalog", "return"} <= get_type_hints(task.fn).keys()
    assert all(f"{name}: " in (task.fn.__doc__ or "") for name in get_type_hints(task.fn) if name != "return")


def test_task_s_function_runs_without_a_prefect_server(
    places: dict[str, Any], spec: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    caplog.set_level(logging.DEBUG, "prefect_stagegate")

    version = stage_dataset.fn(spec, **places)

    records = [record for record in caplog.records if record.name == "prefect_stagegate"]
    assert [record.getMessage() for record in records if record.levelno == logging.INFO] == [
        f"{version.address}: 2 files, 16 B; fetched 16 B, reused 0 B"
    ]
    files = [record.getMessage() for record in records if record.levelno == logging.DEBUG]
    assert [text.split()[0] for text in sorted(files)] == ["a.csv", "b.csv"]


def test_tasks_take_every_form_of_spec_and_an_address(
    places: dict[str, Any], spec: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "things.json"
    file.write_text(str(spec).replace("'", '"'))
    staged = [stage_dataset.fn(dataset, **places) for dataset in (spec, file, str(file), read_spec(spec))]
    brought = [stage_dataset.fn(f"things@{ref}", **places) for ref in ("latest", staged[0].digest)]

    assert {version.digest for version in staged + brought} == {staged[0].digest}
    assert [version.new for version in staged + brought] == [True] + [False] * 5


def test_a_version_survives_pickling(places: dict[str, Any], spec: dict[str, Any]) -> None:
    version = stage_dataset.fn(spec, **places)

    assert pickle.loads(pickle.dumps(version)) == version


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (SourceUnavailable("nobody answers"), True),
        (UsageError("no such ref"), False),
        (OSError("something of Python's"), False),
        (None, False),
    ],
)
def test_task_is_retried_only_when_the_engine_says_it_may_help(error: Any, worth: bool) -> None:
    assert may_help(stage_dataset, None, Failed(data=error)) is worth  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("/etc/stagegate/nycflights.yaml", "nycflights"),
        (Path("nycflights.yaml"), "nycflights"),
        ("https://example.org/specs/nycflights.yaml?x=@y", "nycflights"),
        ("nycflights", "nycflights"),
        ("nycflights@production", "nycflights@production"),
        (f"nycflights@{DIGEST}", "nycflights@sha256:4f9c4f9c4f9c"),
        (Address("nycflights", DIGEST), "nycflights@sha256:4f9c4f9c4f9c"),
        ({"dataset": "nycflights"}, "nycflights"),
        ({}, "a spec"),
    ],
)
def test_what_a_run_works_on_is_named_in_few_words(subject: Any, words: str) -> None:
    assert short_name(subject) == words


# ── the guard ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_guarded_flow_stays_a_flow_and_checks_nothing_at_import(tmp_path: Path) -> None:
    @require_ready("things@production", cache=tmp_path / "none", catalog=tmp_path / "none")
    @flow(name="training", retries=3)
    def train(epochs: int = 7) -> int:
        """Train."""
        return epochs

    assert isinstance(train, Flow)
    assert (train.name, train.retries, train.__doc__) == ("training", 3, "Train.")
    assert list(train.parameters.properties) == ["epochs"]
    assert not (tmp_path / "none").exists()


def test_guarding_a_flow_leaves_the_unguarded_one_as_it_was(tmp_path: Path) -> None:
    @flow
    def train() -> str:
        return "trained"

    guarded = require_ready("things@production", catalog=tmp_path)(train)

    assert train.fn() == "trained"
    assert guarded is not train


def test_what_is_not_ready_is_not_trained_on(places: dict[str, Any], spec: dict[str, Any]) -> None:
    stage_dataset.fn(spec | {"gates": {"production": {"require": ["cache_fit"]}}}, **places)

    with pytest.raises(GateFailed, match="No version of things was accepted for production"):
        require_ready.fn("things@production", **places)


@pytest.mark.parametrize("address", ["things", "things@latest", f"things@{DIGEST}"])
def test_only_a_target_makes_a_version_ready(places: dict[str, Any], spec: dict[str, Any], address: str) -> None:
    stage_dataset.fn(spec, **places)

    with pytest.raises(UsageError, match="names no target"):
        require_ready.fn(address, **places)


def test_unstaged_dataset_is_another_error_than_an_unready_one(places: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no dataset 'things'"):
        require_ready.fn("things@production", **places)


def test_a_guard_that_guards_nothing_is_told() -> None:
    with pytest.warns(RuntimeWarning, match=r"guards none.*require_ready\.fn"):
        require_ready("things@production")


def test_a_guard_that_is_used_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_ready("things@production")(lambda: None)
        gc.collect()


# ── verdicts ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_stopped_while_fetching_records_nothing(
    places: dict[str, Any], spec: dict[str, Any], tmp_path: Path
) -> None:
    stage_dataset.fn(spec | {"gates": {"pilot": {"require": ["nonempty"]}}}, **places)
    elsewhere = {**places, "cache": tmp_path / "another-node"}

    class Soon(threading.Event):
        """Not set when the check begins, and set when the transfer looks."""

        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 1

    token = requested.set(Soon())
    try:
        with pytest.raises(Cancelled):
            ours.check_readiness.fn("things", "pilot", **elsewhere)
    finally:
        requested.reset(token)
    assert not list(places["catalog"].glob("datasets/things/decisions/**/*.json"))
    assert ours.check_readiness.fn("things", "pilot", **elsewhere).accepted


def test_a_refusal_names_the_checks_and_their_first_defects() -> None:
    findings = tuple(Finding(f"2013-{month:02}.parquet", "is cut off\x1b[2J") for month in range(1, 10))
    bad = Evidence("schema", Outcome.FAIL, "9 of 12 files are broken", "data", findings=findings)
    good = Evidence("license", Outcome.PASS, "CC0-1.0 is allowed", "governance")

    state = not_accepted(decision(DecisionOutcome.REFUSED, bad, good))

    assert (state.name, state.is_failed(), type(state.data)) == ("Gate refused", True, GateFailed)
    assert state.message == "refused by pilot: schema; see the artifact"
    text = str(state.data)
    assert f"pilot refused things@{DIGEST}" in text
    assert "9 of 12 files are broken  [data]" in text
    assert "2013-01.parquet: is cut off\\x1b[2J" in text
    assert f"and {9 - FINDINGS} more" in text
    assert "license" not in text
    assert "\x1b" not in text


def test_not_knowing_is_neither_a_pass_nor_a_refusal() -> None:
    unknown = Evidence("read_probe", Outcome.INCONCLUSIVE, "nobody answers", "infra")

    state = not_accepted(decision(DecisionOutcome.INCONCLUSIVE, unknown))

    assert state.message == "not decided by pilot: read_probe; see the artifact"
    assert "can't decide about" in str(state.data)
    assert (state.name, state.is_failed(), type(state.data)) == ("Gate undecided", True, GateUndecided)


def test_waiting_is_a_completed_state_with_the_approve_command() -> None:
    state = waiting(decision(DecisionOutcome.WAITING))

    assert state.is_completed()
    assert state.name == "Waiting for approval"
    assert f"stagegate approve things@{DIGEST} --to pilot" in (state.message or "")


def test_progress_outside_of_a_run_asks_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}), live_progress("things-stage") as progress:
            progress.listed(1, 10)
            progress.moved(10)

        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody connected
            server.accept()


def test_an_unknown_ref_is_told_as_one(places: dict[str, Any], spec: dict[str, Any]) -> None:
    stage_dataset.fn(spec, **places)

    with pytest.raises(UnknownRef, match="no ref `produktion`"):
        stage_dataset.fn("things@produktion", **places)


def test_an_async_flow_may_be_guarded_too(places: dict[str, Any], spec: dict[str, Any]) -> None:
    stage_dataset.fn(spec, **places)

    @require_ready("things@production", **places)
    async def train() -> None:
        raise AssertionError("it must not run")

    assert inspect.iscoroutinefunction(train)
