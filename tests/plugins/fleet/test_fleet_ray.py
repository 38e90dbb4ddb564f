"""A fleet on a Ray cluster: nodes with a resource of their name, each with a cache of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import State

from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.flows import stage_fleet
from prefect_stagegate.plugins.fleet.engines import fleet_engine as loop
from prefect_stagegate.plugins.fleet.engines import ray as ray_module
from prefect_stagegate.plugins.fleet.engines.fleet_engine import NodeJob
from prefect_stagegate.plugins.fleet.engines.ray import ray_engine
from prefect_stagegate.testing.servers import free_port
from tests.plugins.fleet.fleet import FleetNode
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path, "on-ray")
    scenario.deliver("first")
    return scenario


def address_of_this_host() -> str:
    """An address of this machine that isn't the loopback's, which Ray's nodes don't accept."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("10.255.255.255", 1))  # sends nothing
        return str(asking.getsockname()[0])


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A short path for Ray's files: in /tmp/ray, a later `ray.init()` would look for the cluster that is gone."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield folder


@pytest.fixture
def head(tmp_path: Path, scenario: Scenario, ray_folder: str) -> Iterator[tuple[str, FleetNode]]:
    """A cluster of one node, and its address."""
    node = FleetNode(tmp_path, "node-a", Path(scenario.on["catalog"]))
    address = f"{address_of_this_host()}:{free_port()}"
    host, _, port = address.partition(":")
    words = (
        "--block",
        "--include-dashboard=false",
        "--disable-usage-stats",
        "--num-cpus=1",
        '--resources={"node-a": 1}',
    )
    place = (f"--node-ip-address={host}", f"--port={port}", f"--object-store-memory={80 << 20}")
    # Else workers' ports are a range that has the ports of this machine's other servers, too.
    ports = ("--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={free_port()}")
    with node.running(
        "ray", "start", "--head", *words, *place, *ports, env={"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": ray_folder}
    ) as process:
        eventually(lambda: "Ray runtime started" in node.log() or process.poll() is not None, 300)
        assert "Ray runtime started" in node.log(), node.log()
        yield address, node
        process.terminate()  # it ends its own children, which have left its group
        process.wait(30)


def test_ref_moves_on_a_ray_node_and_a_missing_one_is_named(
    scenario: Scenario, head: tuple[str, FleetNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    address, node = head

    def fleet(**parameters: Any) -> Any:
        return stage_fleet(f"{scenario.dataset}@latest", ray=address, lost_after=10, **parameters, **scenario.on)

    state: State[Any] = fleet(nodes=["node-a", "node-b"], return_state=True)
    assert "node-b: lost: Ray has no living node with this resource" in (state.message or "")
    assert node.ref(scenario.dataset, "latest") is None

    assert [report.node for report in fleet().ready] == ["node-a"]
    assert node.ref(scenario.dataset, "latest") == scenario.head("latest")


def test_ray_address_where_nothing_listens_ends_in_seconds() -> None:
    begun, address = time.monotonic(), f"127.0.0.1:{free_port()}"
    with (
        pytest.raises(SourceUnavailable, match=f"The Ray cluster {address} did not answer: .*refused"),
        ray_engine(address, 600),
    ):
        pass
    assert time.monotonic() - begun < 30


def test_ray_head_that_falls_silent_ends_the_round(
    head: tuple[str, FleetNode], ray_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    found = subprocess.run(
        ["pgrep", "--full", f"gcs_server .*{ray_folder}"], capture_output=True, text=True, check=True
    )
    frozen = int(found.stdout)
    with ray_engine(head[0], 600) as engine:
        monkeypatch.setattr(ray_module, "ANSWER_SECONDS", 2)
        monkeypatch.setattr(loop, "SILENCE", 3)
        threading.Timer(1, os.kill, (frozen, signal.SIGSTOP)).start()
        try:
            with pytest.raises(SourceUnavailable, match="does not answer any more"):
                loop.collect_reports.fn(engine, {"node-b": NodeJob("things", "sha256:" + "a" * 64)}, 300)
        finally:
            os.kill(frozen, signal.SIGCONT)
