"""Versions that are read while they arrive: by real processes, from a real server behind a proxy that holds it up."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from prefect_stagegate import open_dataset
from prefect_stagegate.errors import ChecksumMismatch, GateFailed, NotReady, ObjectVanished, UsageError
from prefect_stagegate.jobs.arriving import ArrivingDataset
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.read import open_cache
from prefect_stagegate.jobs.running_jobs import running_jobs, share_arrived
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Version
from tests.support.faults import Fault, Flip, Status
from tests.support.proxy import FaultProxy, Fetch
from tests.support.scenario import Scenario
from tests.support.waiting import eventually
from tests.support.webservers import WebServer, rclone

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SIZE = 50_000
NAMES = [f"{number:02}.bin" for number in range(12)]
BYTES = {name: name.encode() * (SIZE // len(name)) for name in NAMES}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with rclone("http", tmp_path_factory.mktemp("http"), "--read-only") as running:
        (running.root / "lake").mkdir()
        for name, data in BYTES.items():
            (running.root / "lake" / name).write_bytes(data)
        yield running


@pytest.fixture
def proxy(server: WebServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as running:
        yield running


@pytest.fixture
def version(tmp_path: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Version:
    """A version that another node has. This node's cache is empty, and reads one object at a time."""
    other = open_workspace(tmp_path / "other", tmp_path / "catalog")
    staged = stage(other, {"stagegate": 1, "dataset": "things", "sources": [{"url": f"{proxy.url}/lake/"}]})
    proxy.fetches.clear()
    monkeypatch.setenv("STAGEGATE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STAGEGATE_OBJECTS_IN_FLIGHT", "1")
    return staged


@pytest.fixture
def held(proxy: FaultProxy) -> Iterator[threading.Event]:
    """Requests after the third wait until it is set."""
    released = threading.Event()

    def script(fetch: Fetch) -> Fault | None:
        if fetch.number >= 3:
            released.wait(60)
        return None

    proxy.break_with(script)
    yield released
    released.set()


def go_to_a_new_node(
    scenario: Scenario, proxy: FaultProxy, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from an empty cache from now on, one object at a time, of which the first three come at once."""
    held.clear()
    proxy.fetches.clear()
    for name, value in scenario.environment(STAGEGATE_CACHE=str(scenario.folder / "new")).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STAGEGATE_OBJECTS_IN_FLIGHT", "1")


def fetched(proxy: FaultProxy) -> list[str]:
    return [fetch.path.rpartition("/")[2] for fetch in proxy.fetches]


def is_complete(version: Version) -> bool:
    return open_cache().views.path(version.dataset, version.digest) is not None


def read(dataset: ArrivingDataset, name: str) -> bool:
    with dataset.open(name) as file:
        return file.read() == BYTES[name]


def test_readers_decide_the_order(version: Version, proxy: FaultProxy) -> None:
    with open_dataset("things@latest", wait=False) as dataset:
        assert dataset.files() == NAMES
        assert dataset.glob("0?.bin") == NAMES[:10]
        dataset.prefetch(["07.bin", "03.bin"])
        assert read(dataset, "05.bin")
        assert all(read(dataset, name) for name in NAMES)
        eventually(lambda: open_cache().refs.get("things", "latest"))  # follows
    first = ["05.bin", "07.bin", "03.bin"]
    assert fetched(proxy) == [*first, *(name for name in NAMES if name not in first)]
    with open_dataset("things@latest") as complete:
        assert complete.digest == version.digest


def test_readers_wait_in_turn(version: Version, proxy: FaultProxy) -> None:
    with open_dataset("things", wait=False) as dataset, ThreadPoolExecutor(2) as readers:
        first = readers.submit(read, dataset, "08.bin")
        time.sleep(0.1)  # before the process that fetches has begun
        second = readers.submit(read, dataset, "04.bin")
        assert first.result(60)
        assert second.result(60)
    assert fetched(proxy)[:2] == ["08.bin", "04.bin"]


def test_file_is_here_before_the_version(version: Version, proxy: FaultProxy, held: threading.Event) -> None:
    with open_dataset("things", wait=False) as dataset:
        assert read(dataset, "09.bin")
        assert not is_complete(version)
        assert not dataset.is_here("11.bin")
        held.set()
        assert read(dataset, "11.bin")


def test_wish_waits_behind_few_bytes(
    version: Version, server: WebServer, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.root / "wide").mkdir()
    for name in NAMES:
        (server.root / "wide" / name).write_bytes(BYTES[name] * 20)
    other = open_workspace(tmp_path / "other", tmp_path / "catalog")
    stage(other, {"stagegate": 1, "dataset": "wide", "sources": [{"url": f"{proxy.url}/wide/"}]})
    monkeypatch.setenv("STAGEGATE_OBJECTS_IN_FLIGHT", "64")
    proxy.fetches.clear()
    released = threading.Event()

    def hold(_: Fetch) -> None:
        released.wait(60)

    proxy.break_with(hold)
    with open_dataset("wide", wait=False) as dataset:
        eventually(lambda: len(proxy.fetches) >= 3)
        dataset.prefetch(["11.bin"])
        time.sleep(0.5)  # in which all would be begun
        begun = len(proxy.fetches)
        released.set()
        assert dataset.path("11.bin").stat().st_size == 20 * len(BYTES["11.bin"])
    # Of 2 MiB there are three objects of 1 MB, begun when less than that was yet to come.
    assert begun == 3
    # Those that follow at once may begin before it, in any order.
    assert "11.bin" in fetched(proxy)[3:6]


def in_a_process(dataset: ArrivingDataset, number: int) -> set[str]:
    """Read all in an order of its own; gives the processes that fetched meanwhile."""
    names = random.Random(number).sample(NAMES, len(NAMES))
    dataset.prefetch(names)
    fetchers = set()
    for name in names:
        assert read(dataset, name)
        for words in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                if {b"--options-at-stdin", os.environb[b"STAGEGATE_CACHE"]} <= {*words.read_bytes().split(b"\0")}:
                    fetchers.add(words.parent.name)
    return fetchers


@pytest.mark.parametrize(("method", "count"), [("fork", 8), ("spawn", 3)])
def test_processes_share_one_fetching(version: Version, proxy: FaultProxy, method: str, count: int) -> None:
    context = multiprocessing.get_context(method)
    with open_dataset("things", wait=False) as dataset, ProcessPoolExecutor(count, context) as pool:
        fetchers = set().union(*pool.map(in_a_process, [dataset] * count, range(count)))
    assert len(fetchers) <= 1  # none where all was here before the processes began
    assert sorted(fetched(proxy)) == NAMES


def test_another_process_goes_on(
    version: Version, proxy: FaultProxy, held: threading.Event, run_stagegate: Run
) -> None:
    with open_dataset("things", wait=False) as dataset:
        assert read(dataset, "04.bin")
        (job,) = eventually(lambda: running_jobs(open_cache()))
        drafts = eventually(lambda: [path.parent for path in open_cache().layout.ingest.glob("view-*/04.bin")])
        eventually(lambda: len(proxy.fetches) > 3)
        os.kill(job.pid, signal.SIGKILL)
        eventually(lambda: share_arrived(open_cache(), version.digest) is None)
        os.utime(drafts[0], (1_000_000, 1_000_000))
        assert run_stagegate("gc", env=dict(os.environ)).returncode == 0  # what it fetched is kept for its readers
        held.set()
        assert all(read(dataset, name) for name in NAMES)
        eventually(lambda: is_complete(version))
    again = fetched(proxy)
    assert [name for name in NAMES if again.count(name) > 1] == [again[3]]  # which was under way


def test_vanished_object_costs_its_readers_alone(version: Version, proxy: FaultProxy) -> None:
    proxy.break_with(lambda fetch: Status(404) if fetch.path.endswith("02.bin") else None)
    with open_dataset("things", wait=False) as dataset:
        with pytest.raises(ObjectVanished, match=r"02\.bin"):
            dataset.path("02.bin")
        assert all(read(dataset, name) for name in NAMES if name != "02.bin")
        eventually(lambda: share_arrived(open_cache(), version.digest) is None)
    proxy.break_with(lambda _: None)
    with open_dataset("things", wait=False) as dataset:
        assert read(dataset, "02.bin")
        eventually(lambda: is_complete(version))


def test_failure_of_an_earlier_job_is_not_told_again(version: Version, proxy: FaultProxy) -> None:
    proxy.break_with(lambda fetch: Status(404) if fetch.path.endswith("02.bin") else None)
    released = threading.Event()
    with open_dataset("things", wait=False) as dataset, ThreadPoolExecutor(2) as pool:
        with pytest.raises(ObjectVanished):
            dataset.path("02.bin")
        assert eventually(lambda: share_arrived(open_cache(), version.digest) is None)
        proxy.break_with(lambda _: (released.wait(60), None)[1])
        staging = pool.submit(stage, open_workspace(), Address("things", version.digest))
        assert eventually(lambda: share_arrived(open_cache(), version.digest) is not None)
        reading = pool.submit(read, dataset, "02.bin")
        time.sleep(0.5)  # the reader looks for failures at once
        released.set()
        assert reading.result()
        assert staging.result().digest == version.digest


def test_wrong_bytes_are_never_opened(version: Version, proxy: FaultProxy) -> None:
    proxy.break_with(lambda fetch: Flip(1000) if fetch.path.endswith("06.bin") else None)
    with open_dataset("things", wait=False) as dataset:
        with pytest.raises(ChecksumMismatch, match=r"06\.bin"):
            dataset.path("06.bin")
        assert read(dataset, "05.bin")


def test_dead_source_ends_the_wait(version: Version, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_RETRIES", "0")
    proxy.break_with(lambda _: Status(500))
    with open_dataset("things", wait=False) as dataset:
        for name in NAMES[:3]:
            with pytest.raises(Exception, match=name):
                dataset.path(name)


def test_wait_is_bounded(
    version: Version, proxy: FaultProxy, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_dataset("things", wait=False) as dataset:
        assert all(read(dataset, name) for name in NAMES[:3])
    monkeypatch.setenv("STAGEGATE_ARRIVAL_TIMEOUT", "2")
    with open_dataset("things", wait=False) as dataset:
        with pytest.raises(NotReady, match=r"within 2 s.*STAGEGATE_ARRIVAL_TIMEOUT"):
            dataset.path(NAMES[5])
        held.set()


def test_withdrawn_version_is_not_opened_further(
    tmp_path: Path, proxy: FaultProxy, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, gates = {"url": f"{proxy.url}/lake/"}, {"production": {"require": ["nonempty"]}}
    scenario = Scenario(tmp_path, sources=[source], gates=gates)
    held.set()
    scenario.stage(sources=[{**source, "include": [NAMES[0]]}])
    first = scenario.promote()
    scenario.stage()
    scenario.promote()
    go_to_a_new_node(scenario, proxy, held, monkeypatch)
    with open_dataset("things@production", wait=False) as dataset:
        assert read(dataset, NAMES[0])
        rollback(scenario.node(), Address("things", "production"), to=first, reason="poisoned")
        eventually(lambda: share_arrived(open_cache(), dataset.digest) is None)
        with pytest.raises(GateFailed, match="poisoned"):
            dataset.path(NAMES[-1])
        assert read(dataset, NAMES[0])


def test_unknown_file_is_named(version: Version, proxy: FaultProxy) -> None:
    with open_dataset("things", wait=False) as dataset, pytest.raises(UsageError, match=r"no file 'nope'"):
        dataset.prefetch(["nope"])


def test_command_returns_at_once(version: Version, held: threading.Event, run_stagegate: Run, tmp_path: Path) -> None:
    begun = run_stagegate("stage", "things@latest", "--background", env=dict(os.environ))
    assert begun.returncode == 0, begun.stderr
    assert "12 files, 600.0 kB: arriving" in begun.stdout
    assert eventually(lambda: share_arrived(open_cache(), version.digest) == pytest.approx(0.25))
    held.set()
    eventually(lambda: run_stagegate("path", "things@latest", env=dict(os.environ)).returncode == 0)
    spec = tmp_path / "things.yaml"
    spec.write_text("{stagegate: 1, dataset: things, sources: [{url: .}]}")
    refused = run_stagegate("stage", spec, "--background")
    assert refused.returncode == 2
    assert "nobody knows its digests yet" in refused.stderr


def test_url_is_read_early(version: Version, proxy: FaultProxy, held: threading.Event) -> None:
    with fsspec.open("stagegate://things@latest/04.bin?wait=false") as file:
        assert file.read() == BYTES["04.bin"]
    files = fsspec.filesystem("stagegate", wait=False)
    assert files.ls("things@latest", detail=False) == [f"things@latest/{name}" for name in NAMES]
    assert files.info("things@latest/11.bin")["size"] == len(BYTES["11.bin"])
    assert files.isdir("things@latest")
    assert not files.exists("things@latest/12.bin")
    assert not is_complete(version)
    held.set()
    assert files.cat("things@latest/11.bin") == BYTES["11.bin"]


def test_run_begins_before_all_is_here(
    tmp_path: Path, proxy: FaultProxy, held: threading.Event, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Late: processes that are spawned import this module, and need no Prefect.
    from prefect import flow

    from prefect_stagegate.tasks import require_ready

    gates = {"production": {"require": ["nonempty"]}}
    scenario = Scenario(tmp_path, sources=[{"url": f"{proxy.url}/lake/"}], gates=gates)
    held.set()
    scenario.stage()
    scenario.promote()
    go_to_a_new_node(scenario, proxy, held, monkeypatch)

    @flow
    def train() -> tuple[bool, bool]:
        version = require_ready("things@production", arriving=True)
        with open_dataset("things@production", wait=False) as dataset:
            early = read(dataset, NAMES[1]) and not version.path.exists()
            held.set()
            return early, all(read(dataset, name) for name in NAMES)

    assert train() == (True, True)
