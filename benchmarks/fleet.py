"""Stage one version on many simulated nodes, and count what the coordinator, Prefect and the catalog do for each.

    python -m benchmarks.fleet [--nodes 50 200 1000]

One Prefect server on PostgreSQL, one catalog on S3 (SeaweedFS), and one process that takes the nodes' flow runs and
does each node's real part: it fetches the version, one file of eight bytes, into the node's own cache. API calls of
the coordinator are counted by a relay in front of the server, requests to the catalog by proxies in front of the store.
The coordinator is a process of its own. Each fleet has its own catalog and work pool.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.section import write_section
from prefect_stagegate.plugins.fleet.agent import HEARTBEATS
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from prefect_stagegate.testing.servers import SeaweedFS, free_port, seaweedfs
from tests.plugins.sql.postgres import OWNER, PASSWORD, Postgres, postgres
from tests.support.calls import Call, CallCounter
from tests.support.proxy import FaultProxy

DATASET, TARGET = "things", "pilot"
MINUTE = 60
AT_ONCE = 16
"""Simulated nodes that are busy at a time: all of them share one machine."""


@dataclass(frozen=True)
class Figures:
    """One fleet's figures."""

    nodes: int
    ready: int
    calls: Counter[str]
    """The coordinator's API calls."""
    coordinator_requests: int
    node_requests: int
    barrier: float
    """Seconds until each node had reported what it holds."""
    seconds: float
    cpu: float
    """The coordinator's CPU seconds, without imports."""
    server_cpu: float
    """CPU seconds of Prefect's server."""
    agent: float
    """Catalog requests of a round of a node's agent."""
    load: float
    """The machine's load average when the fleet was ready."""
    commands: dict[str, tuple[float, int]]
    """Seconds and catalog requests of commands that read all records."""
    poll: float
    heartbeat: float
    """CPU ms of Prefect's server for a poll and for a heartbeat of a worker."""


def coordinate(nodes: int) -> None:
    """Stage the fleet, and print what it took. Runs in a process of its own."""
    from prefect_stagegate.flows import stage_fleet

    pool = f"simulated-{nodes}"
    before, begun = time.process_time(), time.monotonic()
    deployment = f"stagegate-stage-node/{pool}"
    result: Any = stage_fleet(f"{DATASET}@{TARGET}", pool, lost_after=7200, timeout=3600, deployment=deployment)
    figures = {
        "ready": len(result.ready),
        "seconds": time.monotonic() - begun,
        "cpu": time.process_time() - before,
    }
    print(json.dumps(figures))


@contextmanager
def prefect_server(folder: Path, database: Postgres) -> Iterator[tuple[str, int]]:
    """A Prefect server of its own; gives its API's address, and its process."""
    import httpx

    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    env = {
        **os.environ,
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A statement may take 10 s otherwise; on two cores some took longer, and states of runs were refused with 500.
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        # By default Prefect looks at each run of each node every 20 s, and 15 connections were too few for a thousand.
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "600",
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "20",
        # Nodes take turns, so runs wait as long as those of no real fleet.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "3600",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
            f"postgresql+asyncpg://{OWNER}:{PASSWORD}@127.0.0.1:{database.port}/postgres"
        ),
    }
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--no-ui", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 180
        while True:
            try:
                httpx.get(f"{url}/health", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > until or process.poll() is not None:
                    raise
                time.sleep(0.5)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


class Bench:
    """Everything that all fleets share.

    Args:
        folder: Scratch.
        api: The address of Prefect's API.
        server: The process of Prefect's server.
        store: The store of the catalogs.
        coordinators: The proxy that coordinators and commands read the catalog through.
        of_nodes: The nodes' proxy.
    """

    def __init__(
        self, folder: Path, api: str, server: int, store: SeaweedFS, coordinators: FaultProxy, of_nodes: FaultProxy
    ) -> None:
        self._folder, self._api, self._server, self._store = folder, api, server, store
        self._coordinators, self._of_nodes = coordinators, of_nodes

    def measure(self, nodes: int) -> Figures:
        """Stage a fleet of so many nodes."""
        # After the settings: Prefect reads them when it is imported.
        from benchmarks.simulated_nodes import SimulatedNodes, cpu_seconds
        from tests.plugins.fleet.site import blob_server
        from tests.support.scenario import Scenario

        folder = self._folder / str(nodes)
        folder.mkdir()
        scenario = Scenario(
            folder, DATASET, runbook="https://wiki.example.org/", gates={TARGET: {"require": ["runbook"]}}
        )
        scenario.on["catalog"] = os.environ["STAGEGATE_CATALOG"] = f"{self._store.bucket(f'fleet-{nodes}')}/catalog"
        scenario.deliver("a,b\n1,2\n")
        scenario.promote()
        with blob_server(scenario.node().cache) as blobs:
            simulated = SimulatedNodes(folder, nodes, blobs, AT_ONCE)
            simulated.prepare()
            asked, busy = (self._coordinators.requests, self._of_nodes.requests), cpu_seconds(self._server)
            with simulated, CallCounter(self._api) as counter:
                taken = self._coordinate(nodes, counter.url)
            requests = (self._coordinators.requests - asked[0], self._of_nodes.requests - asked[1])
            busy = cpu_seconds(self._server) - busy
            load = os.getloadavg()[0]
            figures = Figures(
                nodes,
                taken["ready"],
                Counter(map(str, counter.calls)),
                *requests,
                _barrier_seconds(counter.calls),
                taken["seconds"],
                taken["cpu"],
                busy,
                simulated.round_of_an_agent(lambda: self._of_nodes.requests),
                load,
                {name: self._command(*name.split()) for name in ("nodes", f"where {DATASET}@{TARGET}")},
                *simulated.cost_of_workers(self._server),
            )
        for problem in simulated.problems[:5]:
            print(problem, file=sys.stderr)
        return figures

    def _coordinate(self, nodes: int, api: str) -> Any:
        env = {**os.environ, "PREFECT_API_URL": api, "AWS_ENDPOINT_URL": self._coordinators.url}
        command = [sys.executable, "-m", "benchmarks.fleet", "--coordinate", str(nodes)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        return json.loads(done.stdout.splitlines()[-1])

    def _command(self, *words: str) -> tuple[float, int]:
        """Run a command against the store for its seconds, and through the proxy for its requests."""
        command = [sys.executable, "-m", "prefect_stagegate", *words]
        begun = time.monotonic()
        subprocess.run(
            command, env={**os.environ, "AWS_ENDPOINT_URL": self._store.endpoint_url}, check=True, capture_output=True
        )
        seconds, before = time.monotonic() - begun, self._coordinators.requests
        env = {**os.environ, "AWS_ENDPOINT_URL": self._coordinators.url}
        subprocess.run(command, env=env, check=True, capture_output=True)
        return seconds, self._coordinators.requests - before


def _barrier_seconds(calls: list[Call]) -> float:
    """Seconds from the first call that starts runs of the first round to that of the second."""
    starts = [call.at for call in calls if call.path.endswith("/create_flow_run/bulk")]
    return starts[len(starts) // 2] - starts[0]


def section(rows: list[Figures]) -> str:
    """The section of the page."""
    machine = f"{os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()}"
    head = (
        "Simulated nodes of one site against one Prefect server on PostgreSQL and one catalog on SeaweedFS. The "
        f"version is one file of eight bytes. All on {machine}, Prefect {version('prefect')}), "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}. {AT_ONCE} nodes are busy at a time, so "
        "the seconds are the simulation's."
    )
    fleets = _table(
        "nodes | ready | API calls of the coordinator | a node | its CPU s | ms a node | "
        "catalog requests of the coordinator a node | of each node | seconds to the barrier | to the end | "
        "CPU ms of Prefect's server a node | load average",
        [
            (
                f"{row.nodes:,}",
                f"{row.ready:,}",
                f"{row.calls.total():,}",
                f"{row.calls.total() / row.nodes:.2f}",
                f"{row.cpu:.1f}",
                f"{1000 * row.cpu / row.nodes:.1f}",
                f"{row.coordinator_requests / row.nodes:.2f}",
                f"{row.node_requests / row.nodes:.1f}",
                f"{row.barrier:.0f}",
                f"{row.seconds:.0f}",
                f"{1000 * row.server_cpu / row.nodes:.0f}",
                f"{row.load:.0f}",
            )
            for row in rows
        ],
    )
    rounds = HEARTBEATS * MINUTE / FleetSettings().node_timeout
    every_day = _table(
        "nodes | catalog requests of a node's agent a minute | `nodes`, requests | s | `nodes DATASET`, requests | s | "
        "CPU ms of Prefect's server for a worker's poll | for a heartbeat",
        [
            (
                f"{row.nodes:,}",
                f"{row.agent * rounds:.1f}",
                *(cell for seconds, requests in row.commands.values() for cell in (f"{requests:,}", f"{seconds:.1f}")),
                f"{row.poll:.0f}",
                f"{row.heartbeat:.0f}",
            )
            for row in rows
        ],
    )
    return "\n\n".join(
        [
            head,
            fleets,
            "When nothing is staged, with agents that write their record three times in 300 s:",
            every_day,
            f"Again: `python -m benchmarks.fleet --nodes {' '.join(str(row.nodes) for row in rows)}`",
        ]
    )


def _table(head: str, rows: list[tuple[str, ...]]) -> str:
    rule = "|".join("---:" for _ in head.split(" | "))
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {' | '.join(cells)} |" for cells in rows)])


def main() -> None:
    """Measure fleets of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--coordinate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="print the section, and leave the page as it is")
    options = parser.parse_args()
    if options.coordinate:
        coordinate(options.coordinate)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (
            seaweedfs(folder / "s3") as store,
            FaultProxy(store.endpoint_url) as coordinators,
            FaultProxy(store.endpoint_url) as of_nodes,
            postgres() as database,
            prefect_server(folder, database) as (api, server),
        ):
            own = {
                "AWS_ACCESS_KEY_ID": store.key,
                "AWS_SECRET_ACCESS_KEY": store.secret,
                "AWS_ENDPOINT_URL": of_nodes.url,
                "STAGEGATE_CACHE": str(folder / "cache"),
                "PREFECT_API_URL": api,
                "PREFECT_HOME": scratch,
                "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
            }
            os.environ.update(own)
            bench = Bench(folder, api, server, store, coordinators, of_nodes)
            rows = []
            for nodes in options.nodes:
                rows.append(bench.measure(nodes))
                print(rows[-1], file=sys.stderr, flush=True)
                text = section(sorted(rows, key=lambda row: row.nodes))
                # After each: a large one takes long.
                if not options.dry_run:
                    write_section("fleets", text)
    print(text)


if __name__ == "__main__":
    main()
