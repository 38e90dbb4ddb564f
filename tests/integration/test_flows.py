"""The flows and tasks in real runs on a real Prefect server: what they decide."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect import State, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.types import SecretDict

from prefect_stagegate.blocks import StagegateCache, StagegateCatalog, StagegateSource
from prefect_stagegate.errors import GateFailed, SourceUnavailable, UnknownDataset, UsageError
from prefect_stagegate.flows import pilot_to_production, refresh, stage, sweep
from prefect_stagegate.model import Decision, DecisionOutcome, Version
from prefect_stagegate.tasks import acheck_readiness, check_readiness, stage_dataset, validate_dataset
from prefect_stagegate.tasks._support.running import may_help
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.scenario import Scenario, dataset_name
from tests.support.told import artifact, events_about, task_runs_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect_server")

GATES = {
    "pilot": {"require": ["runbook"]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1}}]},
}


@pytest.fixture
def scenario(tmp_path: Path, request: pytest.FixtureRequest) -> Scenario:
    """A scenario whose dataset has a name of its own, and whose source has two files."""
    scenario = Scenario(tmp_path, dataset_name(request), runbook="https://wiki.example.org/", gates=GATES)
    scenario.write("first")
    (scenario.nas / "more.csv").write_text("more")
    return scenario


def run(of: Any, *args: Any, **parameters: Any) -> Any:
    return of(*args, **parameters)


def events(scenario: Scenario, count: int) -> list[dict[str, Any]]:
    """The dataset's events, the oldest first, once there are `count` of them."""
    return events_about(f"stagegate.dataset.{scenario.dataset}", count)


# ── pilot_to_production ─────────────────────────────────────────────────────────────────────────────────────────


def test_refused_version_fails_the_run_and_moves_no_ref(scenario: Scenario) -> None:
    scenario.stage()
    good = scenario.promote()
    scenario.write("second")

    state: State[Any] = run(pilot_to_production, scenario.spec(runbook=None), **scenario.on, return_state=True)

    assert (state.name, state.is_failed()) == ("Gate refused", True)
    assert state.message == "refused by pilot: runbook; see the artifact"
    with pytest.raises(GateFailed, match=f"The gate pilot refused {scenario.dataset}@sha256:(?s:.*)fail +runbook"):
        run(state.result)
    refused = task_runs_of(str(state.state_details.flow_run_id))[-1]
    assert (refused["state_type"], refused["state_name"]) == ("FAILED", "Gate refused")
    assert scenario.head("pilot") == scenario.head("production") == good
    assert events(scenario, 2)[-1]["event"] == "stagegate.gate.failed"
    assert events(scenario, 2)[-1]["payload"]["checks"] == {"runbook": "fail"}


def test_refusal_logs_whose_turn_it_is_without_a_traceback(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    run(pilot_to_production, scenario.spec(runbook=None), **scenario.on, return_state=True)
    (record,) = [record for record in caplog.records if "Whose turn: " in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert not [record for record in caplog.records if record.exc_info]


def test_flow_that_promotes_logs_nobodys_turn(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert pilot_to_production(scenario.spec(), targets=["pilot"], **scenario.on).accepted
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if "is accepted for pilot" in text]
    assert not [text for text in told if "Whose turn" in text]


def test_refused_check_is_red_and_still_answers(scenario: Scenario) -> None:
    stage_dataset.fn(scenario.spec(runbook=None), **scenario.on)
    asked: dict[str, Any] = {"dataset": scenario.dataset, "gate": "pilot", **scenario.on}

    @flow
    def mine() -> tuple[str, list[Decision]]:
        answers = [check_readiness(**asked), check_readiness.submit(**asked).result()]
        return str(flow_run.get_id()), answers

    @flow
    async def mine_too() -> tuple[str, list[Decision]]:
        answers = [await acheck_readiness(**asked), acheck_readiness.submit(**asked).result()]
        return str(flow_run.get_id()), answers

    for of, answers in (mine(), asyncio.run(mine_too())):
        assert [decision.outcome for decision in answers] == [DecisionOutcome.REFUSED] * 2
        runs = task_runs_of(of)
        assert [(each["state_type"], each["state_name"], each["run_count"]) for each in runs] == [
            ("FAILED", "Gate refused", 1)
        ] * 2
        assert {each["state"]["message"] for each in runs} == {"refused by pilot: runbook; see the artifact"}


def test_runs_are_named_by_what_goes_where(scenario: Scenario) -> None:
    promoting: State[Any] = run(
        pilot_to_production, scenario.spec(), targets=["pilot"], **scenario.on, return_state=True
    )
    refreshing: State[Any] = run(
        refresh, [scenario.spec(), f"{scenario.dataset}@pilot"], **scenario.on, return_state=True
    )
    with get_client(sync_client=True) as client:
        names = [
            client.read_flow_run(state.state_details.flow_run_id or uuid4()).name for state in (promoting, refreshing)
        ]
    assert names == [f"{scenario.dataset} → pilot", f"refresh {scenario.dataset}, {scenario.dataset}@pilot"]


def test_missing_targets_are_named_and_others_can_be_chosen(scenario: Scenario) -> None:
    spec = scenario.spec(gates={"pilot": GATES["pilot"]})

    with pytest.raises(UsageError, match=r"production.*pilot"):
        pilot_to_production(spec, **scenario.on)

    decided = pilot_to_production(spec, targets=["pilot"], **scenario.on)
    assert isinstance(decided, Decision)
    assert decided.accepted


def test_neither_a_spec_nor_a_version_is_told_at_once(scenario: Scenario) -> None:
    with pytest.raises(UsageError, match="nothing to promote"):
        pilot_to_production(**scenario.on)


# ── tasks in other people's flows ───────────────────────────────────────────────────────────────────────────────


def test_tasks_run_in_threads_and_return_what_can_be_pickled(scenario: Scenario) -> None:
    @flow
    def mine() -> tuple[str, Version, Any]:
        version = stage_dataset.submit(scenario.spec(), **scenario.on).result()
        validation = validate_dataset.submit(scenario.dataset, **scenario.on)
        return str(flow_run.get_id()), version, validation.result()

    of, version, validation = mine()

    assert pickle.loads(pickle.dumps((version, validation))) == (version, validation)
    assert (version.path / "data.csv").read_text() == "first"
    assert [task_run["name"] for task_run in task_runs_of(of)] == [
        f"stage {scenario.dataset}",
        f"validate {scenario.dataset}",
    ]


def test_each_job_says_one_line_to_the_run(scenario: Scenario) -> None:
    @flow
    def mine() -> str:
        stage_dataset(scenario.spec(), **scenario.on)
        return str(flow_run.get_id())

    of = mine()

    async def logs() -> list[str]:
        async with get_client() as client:
            lines = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(of)])), limit=200)
            return [line.message for line in lines if line.task_run_id]

    lines = eventually(lambda: [line for line in asyncio.run(logs()) if scenario.dataset in line], 15)
    assert len(lines) == 1
    assert "2 files, 9 B; fetched 9 B, reused 0 B" in lines[0]


def test_blocks_name_the_cache_and_the_catalog(scenario: Scenario) -> None:
    cache, catalog = StagegateCache(path=scenario.on["cache"]), StagegateCatalog(url=str(scenario.on["catalog"]))
    cache.save(f"{scenario.dataset}"[:40], _sync=True)  # type: ignore[call-arg]

    loaded: Any = StagegateCache.load(f"{scenario.dataset}"[:40])

    version = stage(scenario.spec(), cache=loaded, catalog=catalog)

    assert version.path.is_relative_to(scenario.on["cache"])
    assert scenario.head("latest") == version.digest


def test_a_spec_names_the_block_that_opens_its_source(scenario: Scenario, seaweedfs: SeaweedFS) -> None:
    bucket = seaweedfs.bucket("flows-credentials")
    seaweedfs.client().pipe(f"{bucket}/data.csv", b"from a bucket")
    secret = SecretDict({"key": seaweedfs.key, "secret": seaweedfs.secret})
    block = StagegateSource(url=bucket, options={"endpoint_url": seaweedfs.endpoint_url}, credentials=secret)
    block.save("flows-credentials", _sync=True)  # type: ignore[call-arg]

    version = stage(
        scenario.spec(sources=[{"url": bucket, "credentials": "stagegate-source/flows-credentials"}]), **scenario.on
    )

    assert (version.path / "data.csv").read_bytes() == b"from a bucket"
    with pytest.raises(UsageError, match="no block 'stagegate-source/flows-nothing'"):
        stage(scenario.spec(sources=[{"url": bucket, "credentials": "stagegate-source/flows-nothing"}]), **scenario.on)


# ── refresh and sweep ───────────────────────────────────────────────────────────────────────────────────────────


def test_refresh_brings_what_another_node_promoted(scenario: Scenario) -> None:
    scenario.stage()
    scenario.promote()
    elsewhere = {**scenario.on, "cache": scenario.folder / "elsewhere"}
    stage_dataset.fn(f"{scenario.dataset}@production", **elsewhere)
    scenario.deliver("second")
    second = scenario.promote()
    versions = refresh([scenario.spec()], **elsewhere)

    assert [version.digest for version in versions] == [second] * 2
    held = scenario.node(cache=scenario.folder / "elsewhere").cache.refs.of(scenario.dataset)
    assert held == {"latest": second, "production": second}


def test_failed_refresh_of_one_dataset_blocks_no_other(scenario: Scenario) -> None:
    scenario.stage()
    digest = scenario.promote()
    elsewhere = {**scenario.on, "cache": scenario.folder / "elsewhere"}
    with pytest.raises(UnknownDataset, match="nobody-staged-it"):
        refresh(["nobody-staged-it@production", f"{scenario.dataset}@production"], **elsewhere)
    assert scenario.node(cache=scenario.folder / "elsewhere").cache.refs.get(scenario.dataset, "production") == digest


def test_sweep_collects_garbage_and_repairs_rotten_files(scenario: Scenario) -> None:
    first = stage_dataset.fn(scenario.spec(), **scenario.on)
    scenario.write("second")
    second = stage_dataset.fn(scenario.spec(), **scenario.on)
    rotten = second.path / "data.csv"
    rotten.chmod(0o600)
    rotten.write_text("rotten")

    collected, verified = sweep(**scenario.on)

    assert collected.versions == (f"{scenario.dataset}@{first.digest}",)
    assert [damage.finding.subject for damage in verified.damaged] == ["data.csv"]
    assert verified.repaired
    assert (second.path / "data.csv").read_text() == "second"


# ── sources that fail, and runs that are stopped ────────────────────────────────────────────────────────────────


class Relay:
    """A TCP relay in front of a server: shut it refuses everybody, and slow it lets few bytes through."""

    def __init__(self, upstream: str) -> None:
        self._upstream = (urlsplit(upstream).hostname, urlsplit(upstream).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.shut = False
        self.slow = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                if self.shut:
                    client.close()
                    continue
                server = socket.create_connection(self._upstream)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(16384):
                sink.sendall(data)
                if self.slow:
                    time.sleep(0.1)


@pytest.fixture
def relay(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    relay = Relay(seaweedfs.endpoint_url)
    yield relay
    relay.close()


def bucket_spec(scenario: Scenario, bucket: str, relay: Relay) -> dict[str, Any]:
    return scenario.spec(sources=[{"url": bucket, "options": {"endpoint_url": relay.url}}])


def test_unavailable_source_is_retried_and_a_missing_one_is_not(
    scenario: Scenario, seaweedfs: SeaweedFS, relay: Relay
) -> None:
    bucket = seaweedfs.bucket("flows-retried")
    seaweedfs.client().pipe(f"{bucket}/data.csv", b"at last")
    relay.shut = True
    reasons = []

    def opening(task: Any, task_run: Any, state: State[Any]) -> bool:
        relay.shut = False
        reasons.append(type(state.data))
        return may_help(task, task_run, state)

    patient = stage_dataset.with_options(retry_condition_fn=opening, retry_delay_seconds=0.1)

    @flow
    def mine(spec: dict[str, Any]) -> Version:
        version: Version = patient(spec, **scenario.on)
        return version

    assert (mine(bucket_spec(scenario, bucket, relay)).path / "data.csv").read_bytes() == b"at last"
    assert reasons == [SourceUnavailable]

    state: State[Any] = run(mine, bucket_spec(scenario, "s3://flows-nothing", relay), return_state=True)
    assert state.is_failed()
    assert len(reasons) == 2
    assert [task_run["run_count"] for task_run in task_runs_of(str(state.state_details.flow_run_id))] == [1]


@contextmanager
def terminated_after(seconds: float) -> Iterator[None]:
    """Get SIGTERM in a while, and treat it as Prefect does in the process of a flow run."""

    def raise_termination(number: int, frame: Any) -> None:
        raise TerminationSignal(signal=number)

    before = signal.signal(signal.SIGTERM, raise_termination)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def test_terminated_stage_ends_in_seconds_and_resumes(scenario: Scenario, seaweedfs: SeaweedFS, relay: Relay) -> None:
    bucket = seaweedfs.bucket("flows-terminated")
    seaweedfs.client().pipe({f"{bucket}/small.bin": b"s" * 1000, f"{bucket}/large.bin": b"l" * 30_000_000})
    spec = bucket_spec(scenario, bucket, relay)
    relay.slow = True
    begun = time.monotonic()

    with terminated_after(1.5), pytest.raises(TerminationSignal):
        stage_dataset.fn(spec, **scenario.on)

    assert time.monotonic() - begun < 6
    assert scenario.node().cache.leases.live() == []
    assert scenario.node().cache.refs.of(scenario.dataset) == {}
    relay.slow = False
    version = stage_dataset.fn(spec, **scenario.on)
    assert version.bytes_fetched < version.bytes == 30_001_000


# ── evidence ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_report_names_a_truncated_file(scenario: Scenario) -> None:
    pq.write_table(pa.table({"day": [1, 2]}), scenario.nas / "good.parquet")
    (scenario.nas / "cut.parquet").write_bytes((scenario.nas / "good.parquet").read_bytes()[:-3])
    contract = {"tables": {"days": {"files": "*.parquet", "columns": {"day": "int"}}}}
    gates = {"pilot": {"require": ["schema", "coverage"]}}

    with pytest.raises(GateFailed, match=r"cut\.parquet"):
        pilot_to_production(scenario.spec(contract=contract, gates=gates), targets=["pilot"], **scenario.on)

    assert scenario.head("pilot") == ""
    report = artifact(f"{scenario.dataset}-pilot-decision")["data"]
    assert "cut.parquet" in report
    assert "good.parquet" not in report
