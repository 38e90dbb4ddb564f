"""Nodes of a fleet that one process simulates: each has a cache and a name of its own, and does its real part.

What a worker and a flow run would add is left out: a worker has one heartbeat, before anything starts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Completed, Failed, Running
from prefect.types.entrypoint import EntrypointType

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.agent import run_agent
from prefect_stagegate.plugins.fleet.engines.pool import to_message
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from prefect_stagegate.plugins.fleet.node import flip_ref, hold_version
from prefect_stagegate.plugins.fleet.nodes import put_node
from prefect_stagegate.plugins.fleet.own_record import publish_record
from prefect_stagegate.workspace import Workspace

ROUNDS, CALLS, IDLE_SECONDS = 5, 300, 20
"""How many rounds of an agent and calls of workers are measured, and for how long a server without them."""


class SimulatedNodes:
    """Nodes of one site; use it as a context manager, during which they take the runs of all queues of their pool.

    Args:
        folder: Holds their caches.
        count: How many.
        blob_server: The URL of the one blob server that answers for all of them.
        at_once: How many are busy at a time.
    """

    def __init__(self, folder: Path, count: int, blob_server: str, at_once: int) -> None:
        self._folder, self._blob_server, self._at_once = folder, blob_server, at_once
        self.names = [f"node-{number:04}" for number in range(count)]
        self.pool = f"simulated-{count}"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.problems: list[str] = []

    def __enter__(self) -> SimulatedNodes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def prepare(self) -> None:
        """Make the pool with its workers and the deployment, and write each node's record."""
        from prefect_stagegate.flows import stage_node

        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name=self.pool, type="process"))
            with ThreadPoolExecutor(self._at_once) as pool:
                list(pool.map(lambda name: client.send_worker_heartbeat(self.pool, name), self.names))
        deployment: Any = stage_node.to_deployment(
            self.pool, work_pool_name=self.pool, entrypoint_type=EntrypointType.MODULE_PATH
        )
        deployment.apply()
        with ThreadPoolExecutor(self._at_once) as pool:
            record = publish_record(self.workspace(self.names[0]))
            catalog = self.workspace(self.names[0]).catalog
            list(pool.map(lambda name: put_node(catalog, replace(record, name=name)), self.names))

    def workspace(self, name: str) -> Workspace:
        """A node's cache and the catalog, opened as by the process of a run."""
        opened = open_workspace(self._folder / name)
        fleet = FleetSettings(site="simulated", peer_url=self._blob_server)
        own = replace(opened.settings, node=name, others=(fleet,))
        return replace(opened, settings=own)

    def round_of_an_agent(self, requests: Callable[[], int]) -> float:
        """Catalog requests of a round in which a node's agent finds nothing new; `requests` counts all of them."""
        workspace = self.workspace(self.names[0])
        before = requests()
        for _ in range(ROUNDS):
            run_agent(workspace, report=self.problems.append, cancel=threading.Event(), once=True)
        return (requests() - before) / ROUNDS

    def cost_of_workers(self, server: int) -> tuple[float, float]:
        """CPU ms of the server for a poll and for a heartbeat of a worker, without what it does anyway."""
        before = cpu_seconds(server)
        time.sleep(IDLE_SECONDS)
        idle = (cpu_seconds(server) - before) / IDLE_SECONDS

        def cost(call: Callable[[SyncPrefectClient, str], Any]) -> float:
            before, begun = cpu_seconds(server), time.monotonic()
            with get_client(sync_client=True) as client:
                for name in islice(cycle(self.names), CALLS):
                    call(client, name)
            return 1000 * (cpu_seconds(server) - before - idle * (time.monotonic() - begun)) / CALLS

        return (
            cost(lambda client, name: client.get_scheduled_flow_runs_for_work_pool(self.pool, [name])),
            cost(lambda client, name: client.send_worker_heartbeat(self.pool, name)),
        )

    def _work(self) -> None:
        with get_client(sync_client=True) as client, ThreadPoolExecutor(self._at_once) as pool:
            taken: set[Any] = set()
            while not self._end.wait(0.5):
                answers = client.get_scheduled_flow_runs_for_work_pool(self.pool)
                fresh = [answer.flow_run for answer in answers if answer.flow_run.id not in taken]
                taken |= {run.id for run in fresh}
                list(pool.map(lambda run: self._run(client, run), fresh))

    def _run(self, client: SyncPrefectClient, run: Any) -> None:
        """Do what `stage_on_node` does in a run's process."""
        client.set_flow_run_state(run.id, Running(), force=True)
        node, parameters = run.name.partition(":")[0], run.parameters
        address = Address.parse(parameters["version"])
        try:
            workspace = self.workspace(node)
            if parameters["ref"]:
                report = flip_ref(workspace, address.dataset, parameters["ref"], address.digest)
            else:
                report = hold_version(workspace, address, fleet=parameters["fleet"])
        except StagegateError as error:
            self.problems.append(f"{node}: {error}")
            client.set_flow_run_state(run.id, Failed(message=str(error)), force=True)
        else:
            client.set_flow_run_state(run.id, Completed(message=to_message(report)), force=True)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = {int(child) for task in tasks for child in task.read_text().split()}
    # After the command's name, which may have spaces: utime, stime, and those of children that ended.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_seconds, children))
