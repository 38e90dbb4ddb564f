"""A flow run that gets SIGTERM in the middle of a staging: it ends in time, holds nothing, and wasted nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL
from soak.inspection import is_alive

from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(300)]

OBJECTS = {f"{number:02}.bin": bytes([number]) * 1000 for number in range(60)}
TOTAL = sum(map(len, OBJECTS.values()))
IN_FLIGHT = 2
GRACE = 30.0
"""Seconds that Kubernetes and Prefect give between SIGTERM and SIGKILL."""

FLOWS = """
import asyncio, sys
from prefect import flow
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from prefect_stagegate.tasks import astage_dataset, stage_dataset

def dask():
    from prefect_dask import DaskTaskRunner
    return DaskTaskRunner(cluster_kwargs={"n_workers": 1, "dashboard_address": None})

RUNNERS = {"threads": ThreadPoolTaskRunner, "processes": lambda: ProcessPoolTaskRunner(max_workers=1), "dask": dask}

@flow
def submitting(spec):
    stage_dataset.with_options(retries=0).submit(spec).result()

@flow
async def awaiting(spec):
    await astage_dataset(spec)

if __name__ == "__main__":
    how, spec = sys.argv[1:]
    if how == "await":
        asyncio.run(awaiting(spec))
    else:
        submitting.with_options(task_runner=RUNNERS[how]())(spec)
"""


class SlowNode:
    """A node whose source takes a quarter of a minute to give all it has."""

    def __init__(self, folder: Path, seaweedfs: SeaweedFS, proxy: FaultProxy) -> None:
        bucket = seaweedfs.bucket(f"worker-{folder.name.replace('_', '-')[-20:].strip('-').lower()}")
        seaweedfs.client().pipe({f"{bucket}/{name}": data for name, data in OBJECTS.items()})
        self.folder, self.proxy = folder, proxy
        self.sources = [{"url": bucket, "options": {"endpoint_url": proxy.url}}]
        self.spec = {"stagegate": 1, "dataset": "things", "sources": self.sources}
        self.environment = {
            "AWS_ACCESS_KEY_ID": seaweedfs.key,
            "AWS_SECRET_ACCESS_KEY": seaweedfs.secret,
            "PREFECT_API_URL": PREFECT_API_URL.value(),
            "PREFECT_HOME": str(folder / "home"),
            "STAGEGATE_CACHE": str(folder / "cache"),
            "STAGEGATE_CATALOG": str(folder / "catalog"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "STAGEGATE_OBJECTS_IN_FLIGHT": str(IN_FLIGHT),
        }

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command of the environment that the tests run in, with its output in `log`."""
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [Path(sys.executable).with_name(str(command[0])), *command[1:]],
                env={**os.environ, **self.environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def leases(self) -> list[Any]:
        return open_workspace(self.folder / "cache", self.folder / "catalog").cache.leases.live()

    def wait(self, look: Callable[[], Any], seconds: float = 120) -> Any:
        value = eventually(look, seconds)
        assert value, self.log()
        return value

    def reach(self, share: float) -> None:
        """Wait until a share of the data is here."""
        self.wait(lambda: self.proxy.bytes >= TOTAL * share)
        assert self.leases()

    def finish(self, monkeypatch: pytest.MonkeyPatch, *, interruptions: int) -> None:
        """Stage what is missing: all together fetched the data once, and what was under way when one was cut off."""
        self.proxy.delay = 0
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        version = stage(open_workspace(), self.spec)
        assert version.files == len(OBJECTS)
        assert version.bytes_fetched < TOTAL
        assert TOTAL <= self.proxy.bytes <= TOTAL + interruptions * IN_FLIGHT * 1000, self.log()


@pytest.fixture
def node(tmp_path: Path, seaweedfs: SeaweedFS) -> Iterator[SlowNode]:
    with FaultProxy(seaweedfs.endpoint_url, delay=0.5) as proxy:
        yield SlowNode(tmp_path, seaweedfs, proxy)


@pytest.mark.system
@pytest.mark.parametrize("how", ["threads", "processes", "dask", "await"])
def test_run_ends_with_its_process_under_each_task_runner(
    how: str, node: SlowNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node.folder / "flows.py").write_text(FLOWS)
    (node.folder / "spec.yaml").write_text(str(node.spec).replace("'", '"'))
    process = node.start("python", "flows.py", how, "spec.yaml")
    try:
        node.reach(0.1)
        process.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        process.wait(GRACE)
        took = time.monotonic() - signalled
        assert took < 15, node.log()
        assert node.leases() == []
    finally:
        process.kill()
        process.wait()

    node.finish(monkeypatch, interruptions=1)


def ask(path: str, **body: Any) -> Any:
    until = time.monotonic() + 30
    while True:
        answer = httpx.post(f"{PREFECT_API_URL.value()}{path}", json=body, timeout=10)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > until:
            return answer.raise_for_status().json()
        time.sleep(0.5)  # a busy server's way to ask for patience


class Job:
    """One run of the flow `stage`, deployed to a work pool of its own."""

    def __init__(self, node: SlowNode, pool: str) -> None:
        ask("/work_pools/", name=pool, type="process")
        flow = ask("/flows/", name="stagegate-stage")["id"]
        entry = "prefect_stagegate.flows.stage:stage"
        deployed = ask("/deployments/", flow_id=flow, name=pool, work_pool_name=pool, entrypoint=entry)["id"]
        self.id = ask(f"/deployments/{deployed}/create_flow_run", parameters={"spec_or_ref": node.spec})["id"]
        self._node, self._pool = node, pool

    def killed(self, who: str, *, share: float) -> None:
        """Start a worker, and stop it or the run's own process when the run has brought a share of the data."""
        worker = self._node.start("prefect", "worker", "start", "--pool", self._pool)
        try:
            self._node.reach(share)
            run = self._node.leases()[0].pid
            os.kill({"worker": worker.pid, "run": run}[who], signal.SIGTERM)
            self._node.wait(lambda: not is_alive(run), GRACE)
            assert self._node.leases() == []
            if who == "run":
                worker.terminate()
            worker.wait(GRACE)
        finally:
            worker.kill()
            worker.wait()
            for lease in self._node.leases():
                os.kill(lease.pid, signal.SIGKILL)

    def reschedule(self) -> None:
        ask(f"/flow_runs/{self.id}/set_state", state={"type": "SCHEDULED"}, force=True)


@pytest.mark.system
def test_run_after_a_killed_worker_fetches_only_the_rest(node: SlowNode, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(node, "killed")
    job.killed("worker", share=0.1)
    job.reschedule()
    job.killed("run", share=0.3)
    node.finish(monkeypatch, interruptions=2)
