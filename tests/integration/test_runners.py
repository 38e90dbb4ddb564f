"""The tasks in other people's flows: on every task runner, in async flows, and when the run is to end."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import pytest
from prefect import Task, flow, unmapped
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

import prefect_stagegate.tasks as ours
from prefect_stagegate.blocks import StagegateCache, StagegateCatalog
from prefect_stagegate.errors import UnknownDataset
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.model import Decision, Promotion, Validation, Version
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.proxy import FaultProxy

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other processes can't import tests

pytestmark = pytest.mark.usefixtures("prefect_server")


def _ray() -> Any:
    import ray.cloudpickle as pickler  # late, since it takes a second
    from prefect_ray.task_runners import RayTaskRunner  # type: ignore[import-untyped]

    pickler.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    return RayTaskRunner(init_kwargs={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20})


RUNNERS: dict[str, Callable[[], TaskRunner[Any]]] = {
    "threads": ThreadPoolTaskRunner,
    "processes": partial(ProcessPoolTaskRunner, max_workers=1),
    "dask": partial(DaskTaskRunner, cluster_kwargs={"n_workers": 1, "dashboard_address": None}),
    "ray": _ray,
}


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/a.csv").write_text("a,b\n1,2\n")
    gates = {"pilot": {"require": ["runbook"]}}
    sources = [{"url": str(tmp_path / "nas")}]
    return {"stagegate": 1, "dataset": "things", "runbook": "https://x.example/", "sources": sources, "gates": gates}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "runner", ["threads", "processes", *(pytest.param(name, marks=pytest.mark.system) for name in ("dask", "ray"))]
)
def test_the_whole_way_goes_on_every_task_runner(
    runner: str, spec: dict[str, Any], places: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a spec as a dictionary and loaded, with places as blocks and as paths, by sync tasks and by async ones."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    blocks: dict[str, Any] = {
        "cache": StagegateCache(path=places["cache"]),
        "catalog": StagegateCatalog(url=str(places["catalog"])),
    }

    @flow(task_runner=RUNNERS[runner]())
    def way() -> tuple[Any, ...]:
        first = ours.stage_dataset.submit(spec, **blocks)
        again = ours.astage_dataset.submit(read_spec(spec), **places, wait_for=[first])
        validations = ours.validate_dataset.map(
            [first.result().address], cache=unmapped(places["cache"]), **_only(places)
        )
        decided = ours.acheck_readiness.submit("things", "pilot", **places, wait_for=[again])
        moved = ours.promote_dataset.submit("things", "pilot", **blocks, wait_for=[decided])
        ready = ours.arequire_ready.submit("things@pilot", **places, wait_for=[moved])
        nothing = ours.astage_dataset.submit("nothing@pilot", **places)
        futures = (first, again, validations[0], decided, moved, ready)
        return *(future.result() for future in futures), nothing.result(raise_on_failure=False)

    first, again, validation, decided, moved, ready, nothing = way()

    assert isinstance(first, Version)
    assert (first.bytes_fetched, again.bytes_reused, again.digest) == (8, 8, first.digest)
    assert isinstance(validation, Validation)
    assert isinstance(decided, Decision)
    assert decided.accepted
    assert isinstance(moved, Promotion)
    assert ready.digest == moved.digest == first.digest
    assert isinstance(nothing, UnknownDataset)
    assert "nothing" in str(nothing)


def _only(places: dict[str, Any]) -> dict[str, Any]:
    return {"catalog": unmapped(places["catalog"])}


# ── twins ───────────────────────────────────────────────────────────────────────────────────────────────────────

TWINS: list[Task[..., Any]] = [getattr(ours, name) for name in ours.__all__ if f"a{name}" in ours.__all__]


@pytest.fixture
def slow(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A spec whose source takes half a minute to give all it has."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    monkeypatch.setenv("STAGEGATE_OBJECTS_IN_FLIGHT", "2")
    bucket = seaweedfs.bucket(f"slow-{tmp_path.name.replace('_', '-')[-20:].strip('-').lower()}")
    seaweedfs.client().pipe({f"{bucket}/{number}.bin": bytes([number]) * 1000 for number in range(60)})
    with FaultProxy(seaweedfs.endpoint_url, delay=1.0) as proxy:
        yield {"stagegate": 1, "dataset": "slow", "sources": [{"url": bucket, "options": {"endpoint_url": proxy.url}}]}


async def held(places: dict[str, Any], count: int, seconds: float = 20) -> None:
    """Wait until this many blobs are in the cache."""
    until = time.monotonic() + seconds
    while len(list((places["cache"] / "blobs").glob("*/*"))) < count:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


def test_async_stage_keeps_the_loop_free_and_can_be_cancelled(slow: dict[str, Any], places: dict[str, Any]) -> None:
    gaps = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    @flow
    async def mine() -> float:
        staging = asyncio.create_task(ours.astage_dataset(slow, **places))
        ticking = asyncio.create_task(tick())
        await held(places, 2)
        ticking.cancel()
        assert open_workspace(**places).cache.leases.live()
        staging.cancel()
        begun = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await staging
        return time.monotonic() - begun

    assert asyncio.run(mine()) < 4
    assert len(gaps) > 50
    assert max(gaps) < 2  # it waits for a second on each object
    assert open_workspace(**places).cache.leases.live() == []
    assert not [thread for thread in threading.enumerate() if thread.name == "stagegate-work"]


def test_a_twin_that_ran_out_of_its_time_stops_the_transfer(slow: dict[str, Any], places: dict[str, Any]) -> None:
    hasty = ours.astage_dataset.with_options(timeout_seconds=2, retries=0)

    @flow
    async def mine() -> Version:
        version: Version = await hasty(slow, **places)
        return version

    with pytest.raises(TimeoutError):
        asyncio.run(mine())
    assert open_workspace(**places).cache.leases.live() == []


def test_twins_raise_what_the_tasks_raise_and_are_retried_alike(places: dict[str, Any]) -> None:
    @flow
    async def mine() -> None:
        await ours.arequire_ready("nothing@pilot", **places)

    with pytest.raises(UnknownDataset):
        asyncio.run(mine())


def test_a_twin_needs_no_run(spec: dict[str, Any], places: dict[str, Any]) -> None:
    version = asyncio.run(ours.astage_dataset.fn(spec, **places))

    assert (version.path / "a.csv").read_text() == "a,b\n1,2\n"


# ── what travels ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", [getattr(ours, name) for name in ours.__all__], ids=ours.__all__)
def test_every_task_travels_and_is_small(task: Task[..., Any]) -> None:
    packed = cloudpickle.dumps(task)

    assert len(packed) < 64_000
    assert pickle.loads(packed).name == task.name


def test_what_tasks_take_travels(spec: dict[str, Any], tmp_path: Path) -> None:
    taken = (read_spec(spec), StagegateCache(path=tmp_path), StagegateCatalog(url=str(tmp_path)))

    assert pickle.loads(cloudpickle.dumps(taken)) == taken
