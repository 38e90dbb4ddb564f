"""A fleet whose nodes are queues of a real work pool, each polled by a real worker with a cache of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from prefect import State, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import StateType
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Crashed
from prefect.types.entrypoint import EntrypointType

from prefect_stagegate.flows import stage_fleet, stage_node
from prefect_stagegate.gate import prefect_state
from prefect_stagegate.gate.prefect_state import live_workers
from prefect_stagegate.plugins.fleet.barrier import FleetResult, NodeOutcome, NodeReport
from prefect_stagegate.plugins.fleet.engines import pool as pool_module
from prefect_stagegate.plugins.fleet.engines.fleet_engine import NodeJob
from prefect_stagegate.plugins.fleet.engines.pool import pool_engine, to_message
from tests.plugins.fleet.fleet import FleetNode
from tests.support.scenario import Scenario, dataset_name
from tests.support.told import artifact, events_about
from tests.support.transcript import BLOCK
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]

POOL = "gpus"
GATES = {"pilot": {"require": ["runbook"]}}
PRODUCTION = {"production": GATES["pilot"]}
HOW_TO = Path(__file__).parents[3] / "docs/how-to"
TRAIN = """
import os
from pathlib import Path
from prefect import flow

@flow
def train():
    Path(__file__).with_name("trained").write_text(os.environ["STAGEGATE_NODE"])
"""


class Pool:
    """A work pool with three nodes, whose workers run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.catalog = folder, folder / "catalog"
        self.nodes = {name: FleetNode(folder, name, self.catalog) for name in ("node-a", "node-b", "node-c")}
        self.stack = ExitStack()

    def start(self, name: str) -> Any:
        """Start a node's worker."""
        env = {
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "2",
        }
        command = ("prefect", "worker", "start", "--pool", POOL, "--work-queue", name, "--name", name)
        return self.stack.enter_context(self.nodes[name].running(*command, env=env))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("pool")
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    deployment: Any = stage_node.to_deployment("fleet", work_pool_name=POOL, entrypoint_type=EntrypointType.MODULE_PATH)
    deployment.apply()
    pool = Pool(folder)
    with pool.stack:
        for name in pool.nodes:
            pool.start(name)
        assert eventually(lambda: live_workers(POOL) >= set(pool.nodes), 120)
        yield pool


@pytest.fixture
def scenario(pool: Pool, tmp_path: Path, request: pytest.FixtureRequest) -> Scenario:
    scenario = Scenario(tmp_path, dataset_name(request), runbook="https://wiki.example.org/", gates=GATES)
    scenario.on["catalog"] = pool.catalog
    scenario.deliver("first")
    scenario.promote()
    return scenario


def fleet(scenario: Scenario, **parameters: Any) -> Any:
    return stage_fleet(f"{scenario.dataset}@pilot", POOL, **parameters, **scenario.on)


def test_ref_names_the_version_on_all_nodes(pool: Pool, scenario: Scenario) -> None:
    result = fleet(scenario)
    again = fleet(scenario)

    assert isinstance(result, FleetResult)
    assert [report.node for report in result.ready] == ["node-a", "node-b", "node-c"]
    assert {report.digest for report in result.ready} == {scenario.head("pilot")}
    assert {node.ref(scenario.dataset, "pilot") for node in pool.nodes.values()} == {scenario.head("pilot")}
    assert [report.fetched for report in again.ready] == [0, 0, 0]
    assert "| node-a | ready, ref moved | 1 |" in artifact(f"{scenario.dataset}-fleet")["data"]


def test_node_whose_worker_is_killed_is_named_and_moves_no_ref(pool: Pool, scenario: Scenario) -> None:
    """The run of a killed worker stays in the state Running: only its missing heartbeats tell."""
    doomed = FleetNode(pool.folder, "node-d", pool.catalog)
    pool.nodes["node-d"] = doomed
    try:
        process = pool.start("node-d")
        assert eventually(lambda: "node-d" in live_workers(POOL), 120)
        doomed.kill(process)
        nodes = ["node-a", "node-d"]
        state: State[Any] = fleet(scenario, nodes=nodes, lost_after=30, return_state=True)

        assert (state.name, state.is_failed()) == ("Fleet not ready", True)
        assert "node-d: lost: its worker in the pool gpus is gone: its last heartbeat was at" in (state.message or "")
        assert pool.nodes["node-a"].ref(scenario.dataset, "pilot") is None
        told = events_about(f"stagegate.dataset.{scenario.dataset}", 1)[-1]
        assert (told["event"], told["resource"]["stagegate.target"]) == ("stagegate.fleet.incomplete", "pilot")
        assert [(node["node"], node["outcome"]) for node in told["payload"]["nodes"]] == [("node-d", "lost")]
        runs = runs_of("node-d")
        assert [run.state.type for run in runs if run.state] == [StateType.CANCELLED]

        result = fleet(scenario, nodes=nodes, lost_after=30, policy={"quorum": 1})
        assert [report.node for report in result.ready] == ["node-a"]
        assert pool.nodes["node-a"].ref(scenario.dataset, "pilot") == scenario.head("pilot")
    finally:
        del pool.nodes["node-d"]
        # No service of this server marks silent workers as offline, and the next tests stage on all that are online.
        with get_client(sync_client=True) as client:
            client.request(
                "DELETE",
                "/work_pools/{work_pool_name}/workers/{name}",
                path_params={"work_pool_name": POOL, "name": "node-d"},
            )


def test_pages_on_fleets_run_as_copied(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(tmp_path, "nycflights", runbook="https://wiki.example.org/", gates=PRODUCTION)
    scenario.on["catalog"] = pool.catalog
    scenario.deliver("first")
    scenario.promote("production")
    for name, value in scenario.environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "train.py").write_text(TRAIN)
    train: Any = flow.from_source(str(tmp_path), "train.py:train")
    train.to_deployment("nycflights", work_pool_name=POOL).apply()
    for page in ("stage-a-fleet.md", "many-nodes.md"):
        (code,) = [text for kind, text in BLOCK.findall((HOW_TO / page).read_text()) if kind == "python"]
        defined: dict[str, Any] = {}
        exec(code, defined)
    assert {node.ref("nycflights", "production") for node in pool.nodes.values()} == {scenario.head("production")}
    defined["train_where_the_data_is"]()
    assert {(tmp_path / "trained").read_text()} <= set(pool.nodes)


def test_stopped_fleet_cancels_the_runs_of_its_nodes(pool: Pool, scenario: Scenario) -> None:
    """The coordinator gets SIGTERM while a node has not answered yet: nothing starts later, and no ref moves."""
    before = signal.signal(signal.SIGTERM, _terminated)
    threading.Thread(target=_terminate_once_started, daemon=True).start()
    try:
        with pytest.raises(TerminationSignal):
            fleet(scenario, nodes=["node-x"])
    finally:
        signal.signal(signal.SIGTERM, before)

    assert [run.state.type for run in runs_of("node-x") if run.state] == [StateType.CANCELLED]


def test_each_run_that_ended_or_was_deleted_is_reported(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In answers of two runs at most: a large fleet takes several."""
    monkeypatch.setattr(pool_module, "READ", 2)
    monkeypatch.setattr(pool_module, "HEARTBEATS_SECONDS", 0)
    nodes, digest = [f"node-{number}" for number in range(6)], "sha256:" + "a" * 64
    with pool_engine(POOL, "stagegate-stage-node/fleet", 90) as engine, get_client(sync_client=True) as client:
        engine.start(dict.fromkeys(nodes, NodeJob("things", digest)))
        assert list(engine.poll()) == []
        runs = {run.name.partition(":")[0]: run.id for node in nodes for run in runs_of(node)}
        for node in nodes[:4]:
            report = NodeReport(node, NodeOutcome.READY, digest)
            client.set_flow_run_state(runs[node], Completed(message=to_message(report)), force=True)
        client.set_flow_run_state(runs["node-4"], Crashed(message="killed"), force=True)
        client.delete_flow_run(runs["node-5"])
        reports = dict(engine.poll())
        assert list(engine.poll()) == []

    assert {node: report.outcome.value for node, report in reports.items()} == {
        **dict.fromkeys(nodes[:4], "ready"),
        "node-4": "failed",
        "node-5": "failed",
    }
    assert (reports["node-4"].problem, reports["node-5"].problem) == ("Crashed: killed", "its flow run was deleted")


def test_wrong_clock_of_the_coordinator_loses_no_node(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock is an hour ahead of the server's, by which heartbeats are dated."""
    for module in (pool_module, prefect_state):
        monkeypatch.setattr(module, "datetime", _HourAhead, raising=False)
    monkeypatch.setattr(pool_module, "HEARTBEATS_SECONDS", 0)
    with pool_engine(POOL, "stagegate-stage-node/fleet", 3) as engine:
        send_heartbeat("node-y")
        engine.start({"node-y": NodeJob("things", "sha256:" + "a" * 64)})
        time.sleep(4)
        send_heartbeat("node-y")
        assert list(engine.poll()) == []
        assert "node-y" in live_workers(POOL)
        time.sleep(4)
        ((node, report),) = engine.poll()
        assert (node, report.outcome) == ("node-y", NodeOutcome.LOST)
        engine.cancel(["node-y"])


def send_heartbeat(worker: str) -> None:
    with get_client(sync_client=True) as client:
        path_params = {"work_pool_name": POOL}
        client.request(
            "POST", "/work_pools/{work_pool_name}/workers/heartbeat", path_params=path_params, json={"name": worker}
        )


class _HourAhead(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(hours=1)


def _terminated(number: int, _: Any) -> None:
    """Treat SIGTERM as Prefect does in the process of a flow run."""
    raise TerminationSignal(signal=number)


def _terminate_once_started() -> None:
    assert eventually(lambda: runs_of("node-x"), 120)
    os.kill(os.getpid(), signal.SIGTERM)


def runs_of(queue: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=f"{queue}: ")), limit=50
        )
