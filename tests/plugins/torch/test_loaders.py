"""PyTorch's and torchdata's loaders on a version that arrives: real torch on the CPU, real processes, real files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from prefect_stagegate import open_dataset
from prefect_stagegate.errors import ObjectVanished, UsageError
from prefect_stagegate.jobs.arriving import ArrivingDataset
from prefect_stagegate.torch import EpochSampler, FileDataset, SampleDataset, ShardDataset, read_parquet
from prefect_stagegate.torch.epoch_order import epoch_order
from tests.plugins.torch.arriving import (
    COUNT,
    SAMPLES,
    SHARDS,
    go_to_node,
    number_in,
    pair_in,
    read_numbers,
    stage_elsewhere,
    tell_process,
    write_source,
)
from tests.support.faults import Fault, Status
from tests.support.proxy import FaultProxy, Fetch
from tests.support.waiting import eventually
from tests.support.webservers import WebServer, rclone

WORKERS = [
    pytest.param({}, id="no workers"),
    pytest.param({"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True}, id="fork"),
    pytest.param({"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True}, id="spawn"),
]
FEW = [pytest.param({}, id="no workers"), pytest.param({"num_workers": 2}, id="workers")]
NODES = ("first", "second")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with rclone("http", tmp_path_factory.mktemp("http"), "--read-only") as running:
        write_source(running.root / "lake")
        yield running


@pytest.fixture
def proxy(server: WebServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as running:
        yield running


def files(data: ArrivingDataset) -> FileDataset[int]:
    return FileDataset(data, "files/*.txt", number_in)


def shards(data: ArrivingDataset, **settings: Any) -> ShardDataset[int]:
    return ShardDataset(data, read_numbers, "shards/*.tar", seed=5, **settings)


def numbers(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch]


@pytest.mark.parametrize("workers", WORKERS)
def test_loader_gives_each_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch, workers: dict[str, Any]) -> None:
    for node in NODES[: 2 if not workers else 1]:
        go_to_node(folder, monkeypatch, f"files-{node}-{workers.get('multiprocessing_context')}")
        with open_dataset("things", wait=False) as data:
            loader = DataLoader(files(data), batch_size=4, sampler=EpochSampler(files(data), seed=7), **workers)
            assert len(loader) == 6
            for epoch in range(2):
                assert numbers(loader) == epoch_order(data.digest, 7, epoch, COUNT)


def test_samples_of_several_files_are_collated(data: ArrivingDataset) -> None:
    dataset = SampleDataset(data, "samples/*", pair_in)
    inputs, labels = next(iter(DataLoader(dataset, batch_size=COUNT)))
    assert torch.equal(labels, inputs % 3)
    assert sorted(inputs.tolist()) == list(range(COUNT))


def rank_of_two(data: ArrivingDataset, rank: int, meeting: str) -> tuple[list[int], list[int]]:
    """What one of two ranks reads: of files, and of shards."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    loader = DataLoader(files(data), batch_size=3, sampler=EpochSampler(files(data), seed=2))
    read = numbers(loader), numbers(DataLoader(shards(data), batch_size=3))
    torch.distributed.destroy_process_group()
    return read


def test_two_ranks_share_an_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_to_node(folder, monkeypatch, "ranks")
    with open_dataset("things", wait=False) as data:
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            ranks = list(pool.map(rank_of_two, [data] * 2, range(2), [str(tmp_path / "meeting")] * 2))
        order = epoch_order(data.digest, 2, 0, COUNT)
    assert [read for read, _ in ranks] == [order[0::2], order[1::2]]
    assert sorted(ranks[0][1] + ranks[1][1]) == SAMPLES


@pytest.mark.parametrize("workers", [*FEW, WORKERS[1]])
def test_stateful_loader_resumes_files(data: ArrivingDataset, workers: dict[str, Any]) -> None:
    def new() -> Any:
        return StatefulDataLoader(files(data), batch_size=4, sampler=EpochSampler(files(data), seed=7), **workers)

    order = epoch_order(data.digest, 7, 0, COUNT)
    loader = new()
    first = iter(loader)
    read = numbers(islice(first, 2))
    state = loader.state_dict()
    assert numbers(first) == order[8:]  # the state is of before
    resumed = new()
    resumed.load_state_dict(state)
    assert read + numbers(resumed) == order
    assert numbers(resumed) == epoch_order(data.digest, 7, 1, COUNT)
    after = new()
    after.load_state_dict(resumed.state_dict())  # the second epoch has ended
    assert numbers(after) == epoch_order(data.digest, 7, 2, COUNT)
    sampler = EpochSampler(files(data), rank=1, world_size=3)
    sampler.load_state_dict(state)  # on another number of ranks, and of workers
    assert numbers(DataLoader(files(data), batch_size=4, sampler=sampler)) == order[8:][1::3]


def test_plain_loader_resumes_by_what_was_consumed(data: ArrivingDataset) -> None:
    sampler = EpochSampler(files(data), seed=7)
    batches = iter(DataLoader(files(data), batch_size=2, sampler=sampler, num_workers=2))
    read = numbers(islice(batches, 3))
    state = sampler.state_dict(consumed=3 * 2)
    assert sampler.state_dict()["consumed"] > state["consumed"]
    resumed = EpochSampler(files(data))
    resumed.load_state_dict(state)
    assert read + numbers(DataLoader(files(data), batch_size=2, sampler=resumed)) == list(
        epoch_order(data.digest, 7, 0, COUNT)
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_shards_give_each_sample_once(folder: Path, monkeypatch: pytest.MonkeyPatch, workers: dict[str, Any]) -> None:
    orders = []
    for node in NODES[: 2 if not workers else 1]:
        go_to_node(folder, monkeypatch, f"shards-{node}-{workers.get('multiprocessing_context')}")
        with open_dataset("things", wait=False) as data:
            dataset = shards(data)
            loader = DataLoader(dataset, batch_size=3, **workers)
            for epoch in range(2):
                dataset.set_epoch(epoch)
                orders.append(numbers(loader))
    assert all(sorted(order) == SAMPLES for order in orders)
    assert orders[0] != orders[1]
    assert orders[2:] in ([], orders[:2])
    if not workers:
        order = epoch_order(data.digest, 5, 0, len(SHARDS))
        assert orders[0] == [10 * shard + sample for shard in order for sample in range(SHARDS[shard])]


@pytest.mark.parametrize(
    ("workers", "batches"),
    [*product(({}, WORKERS[1].values[0], {"num_workers": 2}), (0, 1, 3, 5, 100)), (WORKERS[2].values[0], 3)],
)
def test_stateful_loader_resumes_shards(data: ArrivingDataset, workers: dict[str, Any], batches: int) -> None:
    def new(epoch: int = 3) -> tuple[ShardDataset[int], Any]:
        dataset = shards(data)
        dataset.set_epoch(epoch)
        return dataset, StatefulDataLoader(dataset, batch_size=2, **workers)

    _, loader = new()
    read = numbers(islice(iter(loader), batches))
    state = loader.state_dict()
    dataset, resumed = new(3 + (batches == 100))
    resumed.load_state_dict(state)
    rest = numbers(resumed)
    if batches == 100:
        assert (sorted(read), sorted(rest)) == (SAMPLES, SAMPLES)  # the next epoch
        return
    assert sorted(read + rest) == SAMPLES
    dataset.set_epoch(4)
    assert sorted(numbers(resumed)) == SAMPLES


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1)])
@pytest.mark.parametrize("workers", FEW)
def test_shards_resume_with_other_ranks(
    data: ArrivingDataset, before: int, after: int, workers: dict[str, Any]
) -> None:
    read, states = list[int](), list[Any]()
    for rank in range(before):
        dataset = shards(data, rank=rank, world_size=before)
        loader = StatefulDataLoader(dataset, batch_size=1, **workers)
        batches = iter(loader)
        read += numbers(islice(batches, 3 + rank))
        states.append(loader.state_dict())
    rest, following = list[int](), list[int]()
    for rank in range(after):
        dataset = shards(data, rank=rank, world_size=after)
        dataset.load_state_dict(states)
        rest += numbers(DataLoader(dataset, batch_size=2, num_workers=rank))
        dataset.set_epoch(dataset.epoch + 1)
        following += numbers(DataLoader(dataset, batch_size=2))
    assert sorted(read + rest) == sorted(following) == SAMPLES
    with pytest.raises(UsageError, match=f"states of {before} ranks"):
        shards(data).load_state_dict(states[:-1])


def test_states_of_other_data_are_refused(
    data: ArrivingDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {}
    for name, dataset, sampler in (("files", files(data), EpochSampler(files(data))), ("shards", shards(data), None)):
        loader = StatefulDataLoader(dataset, batch_size=2, sampler=sampler, num_workers=2)
        next(iter(loader))
        states[name] = loader.state_dict()
    source = write_source(tmp_path / "source")
    (source / "files/00.txt").write_text("99")
    stage_elsewhere(tmp_path, str(source))
    go_to_node(tmp_path, monkeypatch, "other")
    with open_dataset("things", wait=False) as changed:
        for name, dataset, sampler in (
            ("files", files(changed), EpochSampler(files(changed))),
            ("shards", shards(changed), None),
        ):
            loader = StatefulDataLoader(dataset, batch_size=2, sampler=sampler, num_workers=2)
            loader.load_state_dict(states[name])
            with pytest.raises(UsageError) as refused:
                next(iter(loader))
            assert data.digest in str(refused.value)
            assert changed.digest in str(refused.value)


def test_plain_workers_states_are_refused(data: ArrivingDataset) -> None:
    dataset = shards(data)
    assert sorted(numbers(DataLoader(dataset, batch_size=2, num_workers=2))) == SAMPLES
    with pytest.raises(UsageError, match="StatefulDataLoader"):
        dataset.state_dict()


def test_error_of_a_reader_names_its_shard(data: ArrivingDataset) -> None:
    broken = ShardDataset(data, read_parquet, "shards/3.tar")
    with pytest.raises(Exception, match=r"(?s)Parquet.*while reading shards/3\.tar"):
        list(DataLoader(broken, batch_size=None, num_workers=1))


@pytest.fixture
def far(tmp_path: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new node, which reads one object at a time from a server."""
    stage_elsewhere(tmp_path, f"{proxy.url}/lake/")
    proxy.fetches.clear()
    go_to_node(tmp_path, monkeypatch)
    monkeypatch.setenv("STAGEGATE_OBJECTS_IN_FLIGHT", "1")
    return tmp_path


FREE = 9
"""Requests that are answered: those of two workers' first batches, and one that was under way before the order came."""


@pytest.fixture
def held(proxy: FaultProxy, far: Path) -> Iterator[threading.Event]:
    """Requests wait until somebody said what is wanted; those after the first `FREE` also until the event is set."""
    released = threading.Event()

    def script(fetch: Fetch) -> Fault | None:
        eventually(lambda: list(far.glob("cache/ingest/arriving-*/wanted")) or released.is_set())
        if fetch.number >= FREE:
            released.wait(300)
        return None

    proxy.break_with(script)
    yield released
    released.set()


def fetched(proxy: FaultProxy) -> list[str]:
    """The paths of objects, each as it was requested first: a busy machine may need a second request."""
    return list(dict.fromkeys(fetch.path.removeprefix("/lake/") for fetch in proxy.fetches))


@pytest.mark.parametrize("workers", WORKERS)
def test_first_batch_needs_the_first_files_only(
    far: Path, proxy: FaultProxy, held: threading.Event, workers: dict[str, Any]
) -> None:
    with open_dataset("things", wait=False) as data:
        sampler = EpochSampler(files(data), seed=7)
        batches = iter(DataLoader(files(data), batch_size=4, sampler=sampler, **workers))
        order = epoch_order(data.digest, 7, 0, COUNT)
        assert next(batches).tolist() == order[:4]
        assert len(fetched(proxy)) <= FREE + 1
        held.set()
        assert numbers(batches) == order[4:]
    names = [f"files/{number:02}.txt" for number in order]
    assert {*fetched(proxy)[1:FREE]} <= {*names[:FREE]}
    assert {*fetched(proxy)[: COUNT + 1]} >= {*names}  # before all that no sample is made of


@pytest.mark.parametrize("workers", FEW)
def test_first_samples_need_the_first_shards_only(
    far: Path, proxy: FaultProxy, held: threading.Event, workers: dict[str, Any]
) -> None:
    with open_dataset("things", wait=False) as data:
        batches = iter(DataLoader(shards(data), batch_size=2, **workers))
        order = epoch_order(data.digest, 5, 0, len(SHARDS))
        first = next(batches).tolist()
        assert {number // 10 for number in first} <= {*order[:2]}
        assert len(fetched(proxy)) <= FREE + 1
        held.set()
        assert sorted(first + numbers(batches)) == SAMPLES
    assert fetched(proxy)[1] in {f"shards/{shard}.tar" for shard in order[:2]}
    assert all(path.startswith("shards/") for path in fetched(proxy)[1:5])


def test_error_of_a_file_reaches_the_loader(far: Path, proxy: FaultProxy) -> None:
    proxy.break_with(lambda fetch: Status(404) if fetch.path.endswith("files/11.txt") else None)
    with open_dataset("things", wait=False) as data, pytest.raises(ObjectVanished, match=r"files/11\.txt"):
        list(DataLoader(files(data), sampler=EpochSampler(files(data)), num_workers=2))


def outcome_of_reading(dataset: FileDataset[int]) -> str:
    try:
        list(DataLoader(dataset, sampler=EpochSampler(dataset), num_workers=1, worker_init_fn=tell_process))
    except RuntimeError as error:
        return str(error)
    return "read all"


def test_killed_worker_ends_the_wait(far: Path, held: threading.Event) -> None:
    with open_dataset("things", wait=False) as data:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            outcome = pool.submit(outcome_of_reading, files(data))
            (worker,) = eventually(lambda: list(far.glob("worker-*")))
            os.kill(int(worker.name.removeprefix("worker-")), signal.SIGKILL)
            assert "DataLoader worker" in outcome.result(60)
        held.set()
        again = DataLoader(files(data), sampler=EpochSampler(files(data)), num_workers=1)
        assert sorted(numbers(again)) == list(range(COUNT))
