"""A fleet on a Dask cluster: a scheduler and three named workers, each a process with a cache of its own."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prefect import State

from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.flows import stage_fleet
from prefect_stagegate.plugins.fleet.engines import dask as dask_module
from prefect_stagegate.plugins.fleet.engines import fleet_engine as loop
from prefect_stagegate.plugins.fleet.engines.dask import dask_engine
from prefect_stagegate.plugins.fleet.engines.fleet_engine import NodeJob
from prefect_stagegate.testing.servers import free_port
from tests.plugins.fleet.fleet import FleetNode
from tests.plugins.fleet.site import SITE, Site
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]

NODES = ("node-a", "node-b", "node-c")


class Cluster:
    """A scheduler and its workers, whose environment may name a site."""

    def __init__(self, folder: Path, stack: ExitStack, catalog: Path, **site: str) -> None:
        self._stack, self.address, self._site = stack, f"tcp://127.0.0.1:{free_port()}", site
        self.nodes = {name: FleetNode(folder, name, catalog) for name in NODES}
        scheduler = FleetNode(folder, "scheduler", catalog)
        port = self.address.rpartition(":")[2]
        command = ("dask", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        stack.enter_context(scheduler.running(*command, env={}))
        self.processes = {name: self.start(name) for name in NODES}
        with dask_engine(self.address, 10) as engine:
            assert eventually(lambda: set(engine.nodes()) == set(NODES), 120)

    def start(self, name: str) -> Any:
        """Start a node's worker, and in a site its blob server."""
        env = dict(self._site)
        if env:
            place = f"127.0.0.1:{free_port()}"
            env["STAGEGATE_PEER_URL"] = f"http://{place}"
            server = self.nodes[name].running("stagegate", "serve", "blobs", "--bind", place, env=env)
            self._stack.enter_context(server)
        command = ("dask", "worker", self.address, "--name", name, "--no-nanny", "--nthreads", "1", "--no-dashboard")
        return self._stack.enter_context(self.nodes[name].running(*command, env=env))


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path, "on-dask")
    scenario.deliver("first")
    return scenario


@pytest.fixture
def cluster(tmp_path: Path, scenario: Scenario) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack, Path(scenario.on["catalog"]))


def fleet(scenario: Scenario, cluster: Cluster, **parameters: Any) -> Any:
    return stage_fleet(f"{scenario.dataset}@latest", dask=cluster.address, lost_after=20, **parameters, **scenario.on)


def refs(scenario: Scenario, cluster: Cluster) -> dict[str, bool]:
    digest = scenario.head("latest")
    return {name: node.ref(scenario.dataset, "latest") == digest for name, node in cluster.nodes.items()}


def test_killed_dask_worker_is_lost_and_the_policy_decides(scenario: Scenario, cluster: Cluster) -> None:
    cluster.nodes["node-b"].kill(cluster.processes["node-b"])
    state: State[Any] = fleet(scenario, cluster, nodes=list(NODES), return_state=True)
    assert state.name == "Fleet not ready"
    assert "node-b: lost: the scheduler has no worker of this name" in (state.message or "")
    assert not any(refs(scenario, cluster).values())

    fleet(scenario, cluster, nodes=list(NODES), policy={"quorum": 2})
    assert refs(scenario, cluster) == {"node-a": True, "node-b": False, "node-c": True}

    cluster.start("node-b")
    result = fleet(scenario, cluster, nodes=list(NODES))
    assert [report.node for report in result.ready] == [*NODES]
    assert refs(scenario, cluster) == dict.fromkeys(NODES, True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    drawn = random.Random(25)
    site = Site(tmp_path, {f"{number:03}.bin": drawn.randbytes(drawn.randrange(1, 1_000_000)) for number in range(100)})
    site.make()
    yield site
    site.close()


@pytest.fixture
def site_cluster(tmp_path: Path, site: Site) -> Iterator[Cluster]:
    """Nodes with blob servers, none of which ever ran an agent."""
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, stack, tmp_path / "catalog", STAGEGATE_SITE=SITE)
        known = {path.stem for path in (tmp_path / "catalog/nodes").iterdir()}
        assert known.isdisjoint(NODES)
        yield cluster


def bytes_by_node(site_cluster: Cluster, folder: Path, *nodes: str) -> dict[str, int]:
    """Bring the newest version to nodes; the bytes that each fetched."""
    on: dict[str, Any] = {"cache": folder / "outside", "catalog": folder / "catalog"}
    result: Any = stage_fleet("things@latest", dask=site_cluster.address, nodes=list(nodes), **on)
    return {report.node: report.fetched for report in result.ready}


def test_nodes_without_an_agent_read_the_source_once(tmp_path: Path, site: Site, site_cluster: Cluster) -> None:
    assert bytes_by_node(site_cluster, tmp_path, *NODES) == dict.fromkeys(NODES, site.size)
    assert site.read() <= 1.1 * site.size


def test_node_that_joins_reads_from_nodes_with_old_records(tmp_path: Path, site: Site, site_cluster: Cluster) -> None:
    assert bytes_by_node(site_cluster, tmp_path, "node-a", "node-b") == {"node-a": site.size, "node-b": site.size}
    for path in (tmp_path / "catalog/nodes").glob("node-*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "at": "2026-01-01T00:00:00.000000Z"}))
    assert bytes_by_node(site_cluster, tmp_path, "node-c") == {"node-c": site.size}
    assert site.read() <= 1.1 * site.size


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_dask_scheduler_that_falls_silent_ends_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blow: signal.Signals
) -> None:
    port = str(free_port())
    command = ("dask", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    scheduler = FleetNode(tmp_path, "scheduler", tmp_path).running(*command, env={})
    with scheduler as process, dask_engine(f"tcp://127.0.0.1:{port}", 600) as engine:
        monkeypatch.setattr(dask_module, "ANSWER_SECONDS", 1)
        monkeypatch.setattr(loop, "SILENCE", 2)
        threading.Timer(1, process.send_signal, [blow]).start()
        with pytest.raises(SourceUnavailable, match="does not answer any more"):
            loop.collect_reports.fn(engine, {"node-a": NodeJob("things", "sha256:" + "a" * 64)}, 300)


def test_dask_scheduler_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(SourceUnavailable, match="did not answer"),
        dask_engine(f"tcp://127.0.0.1:{free_port()}", 10),
    ):
        pass
