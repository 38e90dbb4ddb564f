"""Files and samples of an arriving version, and the sampler's order and states: on real caches, without torch."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_stagegate import open_dataset
from prefect_stagegate.errors import MissingExtra, UsageError
from prefect_stagegate.jobs.arriving import ArrivingDataset
from prefect_stagegate.torch.epoch_order import epoch_order
from prefect_stagegate.torch.epoch_sampler import EpochSampler
from prefect_stagegate.torch.file_datasets import FileDataset, SampleDataset
from tests.plugins.torch.arriving import COUNT, go_to_node, number_in, pair_in, stage_elsewhere, write_source


@pytest.fixture
def arriving(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[ArrivingDataset]:
    """The version on a new node."""
    go_to_node(folder, monkeypatch, request.node.name)
    with open_dataset("things", wait=False) as data:
        yield data


def files(data: ArrivingDataset) -> FileDataset[int]:
    return FileDataset(data, "files/*.txt", number_in)


def test_files_are_samples(arriving: ArrivingDataset) -> None:
    dataset = files(arriving)
    assert [dataset[index] for index in range(len(dataset))] == list(range(COUNT))
    assert Path(str(FileDataset(arriving, ["files/07.txt"])[0])).read_text() == "7"
    with pytest.raises(IndexError):
        dataset[COUNT]
    with pytest.raises(UsageError, match=r"no file 'nope\.txt'"):
        FileDataset(arriving, ["nope.txt"])
    with pytest.raises(UsageError, match=r"no file '\*\.png'"):
        FileDataset(arriving, "*.png")


def test_files_of_one_key_are_one_sample(arriving: ArrivingDataset) -> None:
    dataset = SampleDataset(arriving, "samples/*", pair_in)
    assert len(dataset) == COUNT
    assert dataset.names[7] == "samples/07"
    assert dataset[7] == (7, 1)
    plain = SampleDataset(arriving, "samples/*")[7]
    assert isinstance(plain, dict)
    assert {suffix: Path(path).read_text() for suffix, path in plain.items()} == {"in.txt": "7\n", "cls": "1\n"}


def test_datasets_can_be_pickled(arriving: ArrivingDataset) -> None:
    dataset = files(arriving)
    assert dataset[3] == 3
    assert pickle.loads(pickle.dumps(dataset))[5] == 5


def test_sampler_has_the_documented_order(data: ArrivingDataset) -> None:
    sampler = EpochSampler(files(data), seed=3)
    assert list(sampler) == epoch_order(data.digest, 3, 0, COUNT)
    assert list(sampler) == epoch_order(data.digest, 3, 1, COUNT)
    sampler.set_epoch(9)
    assert list(sampler) == epoch_order(data.digest, 3, 9, COUNT)
    assert list(EpochSampler(files(data), shuffle=False)) == list(range(COUNT))


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 3), (3, 1)])
def test_resume_gives_the_rest_to_any_ranks(data: ArrivingDataset, before: int, after: int) -> None:
    samplers = [EpochSampler(files(data), seed=1, rank=rank, world_size=before) for rank in range(before)]
    for sampler in samplers:
        sampler.set_epoch(4)
    passes = [iter(sampler) for sampler in samplers]
    read = [next(each) for _ in range(5) for each in passes]
    state = json.loads(json.dumps(samplers[0].state_dict()))
    assert state == samplers[-1].state_dict()
    resumed = [EpochSampler(files(data), rank=rank, world_size=after) for rank in range(after)]
    for sampler in resumed:
        sampler.load_state_dict(state)
        sampler.set_epoch(4)  # changes nothing
    rest = [list(sampler) for sampler in resumed]
    assert [len(share) for share in rest] == [len(range(rank, COUNT - 5 * before, after)) for rank in range(after)]
    assert sorted(read + [number for share in rest for number in share]) == list(range(COUNT))
    whole = [list(sampler) for sampler in resumed]  # the next epoch
    assert sorted(number for share in whole for number in share) == list(range(COUNT))
    assert {sampler.epoch for sampler in resumed} == {5}


def test_state_of_an_ended_epoch_begins_the_next(data: ArrivingDataset) -> None:
    sampler = EpochSampler(files(data), seed=1)
    list(sampler)
    resumed = EpochSampler(files(data))
    resumed.load_state_dict(sampler.state_dict())
    assert (resumed.epoch, len(resumed)) == (1, COUNT)
    assert list(resumed) == epoch_order(data.digest, 1, 1, COUNT)


def test_state_can_tell_what_was_consumed(data: ArrivingDataset) -> None:
    sampler = EpochSampler(files(data), seed=1)
    order = list(sampler)  # a plain DataLoader's workers were given all
    resumed = EpochSampler(files(data))
    resumed.load_state_dict(sampler.state_dict(consumed=8))
    assert len(resumed) == COUNT - 8
    assert list(resumed) == order[8:]


def test_uneven_rest_is_dropped_on_demand(data: ArrivingDataset) -> None:
    samplers = [EpochSampler(files(data), rank=rank, world_size=4, drop_uneven=True) for rank in range(4)]
    read = [list(sampler) for sampler in samplers]
    assert {len(share) for share in read} == {5} == {len(sampler) for sampler in samplers}
    assert len({number for share in read for number in share}) == 20
    assert {sampler.state_dict()["consumed"] for sampler in samplers} == {COUNT}


def test_state_of_other_data_is_refused(data: ArrivingDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = EpochSampler(files(data)).state_dict()
    (write_source(tmp_path / "source") / "files/00.txt").write_text("99")
    other = stage_elsewhere(tmp_path, str(tmp_path / "source"))
    go_to_node(tmp_path, monkeypatch, "other")
    with open_dataset("things", wait=False) as changed:
        assert changed.digest == other.digest
        with pytest.raises(UsageError) as refused:
            EpochSampler(files(changed)).load_state_dict(state)
    assert data.digest in str(refused.value)
    assert other.digest in str(refused.value)
    with pytest.raises(UsageError, match="other files"):
        EpochSampler(FileDataset(data, "samples/*")).load_state_dict(state)


@pytest.mark.parametrize("change", [{"consumed": 24}, {"consumed": -1}, {"epoch": "0"}, {"seed": None}])
def test_damaged_state_is_refused(data: ArrivingDataset, change: dict[str, object]) -> None:
    sampler = EpochSampler(files(data))
    with pytest.raises(UsageError, match="no state"):
        sampler.load_state_dict(sampler.state_dict() | change)


def test_ranks_come_from_the_launcher(data: ArrivingDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert list(EpochSampler(files(data), shuffle=False)) == list(range(1, COUNT, 3))
    for rank, world_size in ((3, 3), (0, None), (-1, 2)):
        with pytest.raises(UsageError, match="doesn't exist"):
            EpochSampler(files(data), rank=rank, world_size=world_size)
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(UsageError, match="Rank one of 3"):
        EpochSampler(files(data))


def test_package_imports_no_torch() -> None:
    code = "import sys, prefect_stagegate.torch as t; t.EpochSampler, t.FileDataset; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_torch_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; from prefect_stagegate.torch import ShardDataset"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert MissingExtra.__name__ in done.stderr
    assert 'pip install "prefect-stagegate[torch]"' in done.stderr
