"""Stage one version on many simulated nodes, and count what the coordinator and the catalog have to do for each.

    python -m benchmarks.fleet [--nodes 100 300 1000]

One Prefect server, one catalog on S3 (SeaweedFS), and one process that takes the nodes' flow runs and does each node's
real part over a cache that holds the version already: no bytes move. API calls are counted by a relay in front of the
server, requests to the catalog by proxies in front of the store. The coordinator is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect_stagegate.testing.servers import free_port, seaweedfs
from tests.support.calls import CallCounter
from tests.support.proxy import FaultProxy

PAGE = Path(__file__).parent.parent / "docs/performance.md"
BEGIN, END = "<!-- fleets: begin -->", "<!-- fleets: end -->"
POOL, DATASET = "simulated", "things"
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
    seconds: float
    cpu: float
    """The coordinator's, without imports."""
    memory: int


def coordinate(nodes: int) -> None:
    """Stage the fleet, and print what it took. Runs in a process of its own."""
    import resource

    from prefect_stagegate.flows import stage_fleet

    before, begun = time.process_time(), time.monotonic()
    names = [_name(number) for number in range(nodes)]
    result: Any = stage_fleet(f"{DATASET}@latest", POOL, names, lost_after=7200, timeout=7200)
    figures = {
        "ready": len(result.ready),
        "seconds": time.monotonic() - begun,
        "cpu": time.process_time() - before,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }
    print(json.dumps(figures))


class SimulatedNodes:
    """Takes the runs of all queues of the pool and does each node's part."""

    def __init__(self, nas: Path) -> None:
        from prefect_stagegate.operations.staging.stage import stage
        from prefect_stagegate.operations.workspace import open_workspace

        self._workspace = open_workspace()
        stage(self._workspace, {"stagegate": 1, "dataset": DATASET, "sources": [{"url": str(nas)}]})
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> SimulatedNodes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def publish(self, nodes: int) -> None:
        """Write each node's record."""
        from prefect_stagegate.operations.fleet.own_record import build_record

        record = build_record(self._workspace)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            records = (replace(record, name=_name(number)) for number in range(nodes))
            list(pool.map(self._workspace.catalog.put_node, records))

    def _loop(self) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client, ThreadPoolExecutor(AT_ONCE) as pool:
            taken: set[Any] = set()
            while not self._end.wait(0.5):
                answers = client.get_scheduled_flow_runs_for_work_pool(POOL)
                fresh = [answer.flow_run for answer in answers if answer.flow_run.id not in taken]
                taken |= {run.id for run in fresh}
                list(pool.map(lambda run: self._do(client, run), fresh))

    def _do(self, client: Any, run: Any) -> None:
        from prefect.states import Completed, Running

        from prefect_stagegate.model import Address
        from prefect_stagegate.operations.fleet.node import flip_ref, hold_version
        from prefect_stagegate.tasks._fleet.message import to_message

        client.set_flow_run_state(run.id, Running(), force=True)
        node, parameters = run.name.partition(":")[0], run.parameters
        workspace = replace(self._workspace, settings=replace(self._workspace.settings, node=node))
        address = Address.parse(parameters["version"])
        if parameters["ref"]:
            report = flip_ref(workspace, address.dataset, parameters["ref"], address.digest)
        else:
            report = hold_version(workspace, address)
        client.set_flow_run_state(run.id, Completed(message=to_message(report)), force=True)


def _name(number: int) -> str:
    return f"node-{number:04}"


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """A Prefect server of its own, with its database in the folder; gives its API's address."""
    import httpx

    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    env = {**os.environ, "PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
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
        yield url
    finally:
        process.terminate()
        process.wait()


def deploy() -> None:
    """Make the pool and the deployment."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.types.entrypoint import EntrypointType

    from prefect_stagegate.flows import stage_node

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    deployment: Any = stage_node.to_deployment("fleet", work_pool_name=POOL, entrypoint_type=EntrypointType.MODULE_PATH)
    deployment.apply()


def measure(nodes: int, url: str, simulated: SimulatedNodes, proxies: tuple[FaultProxy, FaultProxy]) -> Figures:
    """Stage a fleet of so many nodes."""
    simulated.publish(nodes)
    coordinators, of_nodes = proxies
    asked = (coordinators.requests, of_nodes.requests)
    with CallCounter(url) as counter:
        env = {**os.environ, "PREFECT_API_URL": counter.url, "AWS_ENDPOINT_URL": coordinators.url}
        command = [sys.executable, "-m", "benchmarks.fleet", "--coordinate", str(nodes)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        calls = Counter(str(call) for call in counter.calls)
    taken = json.loads(done.stdout.splitlines()[-1])
    requests = (coordinators.requests - asked[0], of_nodes.requests - asked[1])
    return Figures(nodes, taken["ready"], calls, *requests, taken["seconds"], taken["cpu"], taken["memory"])


def table(rows: list[Figures]) -> str:
    """The section of the page."""
    machine = f"{os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()}"
    head = (
        "Simulated nodes against one Prefect server (SQLite) and one catalog on SeaweedFS; no bytes move; all on "
        f"{machine}, Prefect {version('prefect')}), load average {os.getloadavg()[2]:.1f}, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}. Nodes take turns, {AT_ONCE} at a time, so the seconds are the "
        "simulation's."
    )
    lines = [head, "", "| nodes | API calls of the coordinator | a node | its CPU s | ms a node | peak memory MB |"]
    lines[-1] += " catalog requests of the coordinator a node | of each node | seconds |"
    lines.append("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        calls = row.calls.total()
        lines.append(
            f"| {row.nodes:,} | {calls:,} | {calls / row.nodes:.2f} | {row.cpu:.1f} | "
            f"{1000 * row.cpu / row.nodes:.1f} | {row.memory / 1e6:.0f} | {row.coordinator_requests / row.nodes:.2f} | "
            f"{row.node_requests / row.nodes:.1f} | {row.seconds:.0f} |"
        )
    most = "; ".join(f"{count:,} × `{call}`" for call, count in rows[-1].calls.most_common(5))
    frequent = f"The most frequent calls at {rows[-1].nodes:,} nodes: {most}."
    return "\n".join([*lines, "", frequent, "", "Again: `python -m benchmarks.fleet`"])


def write(text: str) -> None:
    """Put the section into the page."""
    page = PAGE.read_text()
    if BEGIN not in page:
        page = f"{page.rstrip()}\n\n## Fleets\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    """Measure fleets of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--coordinate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="print the section, and leave the page as it is")
    options = parser.parse_args()
    if options.coordinate:
        coordinate(options.coordinate)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "nas").mkdir()
        (folder / "nas/a.csv").write_text("a,b\n1,2\n")
        with (
            seaweedfs(folder / "s3") as store,
            FaultProxy(store.endpoint_url) as coordinators,
            FaultProxy(store.endpoint_url) as of_nodes,
            prefect_server(folder) as url,
        ):
            own = {
                "AWS_ACCESS_KEY_ID": store.key,
                "AWS_SECRET_ACCESS_KEY": store.secret,
                "AWS_ENDPOINT_URL": of_nodes.url,
                "STAGEGATE_CATALOG": f"{store.bucket('fleet')}/catalog",
                "STAGEGATE_CACHE": str(folder / "cache"),
                "STAGEGATE_NODE_TIMEOUT": "86400",
                "PREFECT_API_URL": url,
                "PREFECT_HOME": scratch,
            }
            os.environ.update(own)
            deploy()
            with SimulatedNodes(folder / "nas") as simulated:
                rows = []
                for nodes in options.nodes:
                    rows.append(measure(nodes, url, simulated, (coordinators, of_nodes)))
                    print(rows[-1], file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if not options.dry_run:
        write(text)


if __name__ == "__main__":
    main()
