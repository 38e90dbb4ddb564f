"""How ranks and workers share an epoch, and what is left of it: arithmetic, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.errors import UsageError
from prefect_stagegate.torch.epoch_order import (
    epoch_order,
    group_samples,
    growing_chunks,
    rank_share,
    states_in,
)
from prefect_stagegate.torch.shard_progress import Consumer, EpochProgress, Pass, together

DIGEST = f"sha256:{'0' * 64}"
counts, ranks = st.integers(0, 60), st.integers(1, 5)


def test_order_is_the_documented_one() -> None:
    numbers = hashlib.shake_256(f"{DIGEST} 7 3".encode()).digest(8 * 300)
    keys = [(int.from_bytes(numbers[8 * i : 8 * i + 8], "big"), i) for i in range(300)]
    assert epoch_order(DIGEST, 7, 3, 300) == [i for _, i in sorted(keys)]
    assert epoch_order(DIGEST, 7, 3, 10) == [9, 3, 2, 0, 5, 6, 8, 1, 7, 4]  # frozen: states of other days rest on it


@given(counts, st.integers(), st.integers(0, 1000))
def test_order_has_each_sample_once(count: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(DIGEST, seed, epoch, count)) == list(range(count))


def test_order_changes_with_each_of_its_parts() -> None:
    orders = [epoch_order(DIGEST, 0, 0, 50), epoch_order(DIGEST, 1, 0, 50), epoch_order(DIGEST, 0, 1, 50)]
    orders.append(epoch_order(DIGEST.replace("0", "1"), 0, 0, 50))
    assert len({tuple(order) for order in orders}) == 4


@given(counts, st.lists(st.tuples(ranks, st.integers(0, 8)), max_size=4), ranks)
def test_ranks_give_the_epoch_once(count: int, runs: list[tuple[int, int]], last: int) -> None:
    """Runs of so many ranks, each of which reads so many samples in lockstep; then one to the end."""
    order, read, consumed = list(range(count)), list[int](), 0
    for size, steps in [*runs, (last, count + 1)]:
        shares = [rank_share(order[consumed:], rank, size, drop_uneven=False) for rank in range(size)]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        read += [share[step] for step in range(steps) for share in shares if step < len(share)]
        consumed = min(count, consumed + steps * size)
    assert read == order


@given(counts, ranks)
def test_dropped_rest_is_smaller_than_a_step(count: int, size: int) -> None:
    shares = [rank_share(range(count), rank, size, drop_uneven=True) for rank in range(size)]
    assert {len(share) for share in shares} == {count // size}
    assert sorted(number for share in shares for number in share) == list(range(count // size * size))


@given(st.integers(0, 5000))
def test_chunks_have_each_sample_once_and_grow(count: int) -> None:
    chunks = list(growing_chunks(count))
    assert [number for chunk in chunks for number in chunk] == list(range(count))
    assert all(len(chunk) <= min(1024, 64 * 2**place) for place, chunk in enumerate(chunks))


class Run:
    """All workers of all ranks that read shards of so many samples, as `ShardDataset` does."""

    def __init__(self, shards: list[int], before: EpochProgress, size: int, workers: int, *, drop_uneven: bool) -> None:
        consumers = [Consumer(rank, size, worker, workers) for rank in range(size) for worker in range(workers)]
        self._shards = shards
        self.passes = [Pass(7, True, 2, before, consumer, drop_uneven) for consumer in consumers]

    def read(self, current: Pass, most: int | None = None) -> list[tuple[int, int]]:
        def read(shards: Sequence[int]) -> list[tuple[int, int]]:
            return [(shards[0], sample) for sample in range(self._shards[shards[0]])]

        return [*islice(current.read(DIGEST, len(self._shards), read), most)]

    def states(self) -> list[Pass]:
        """After a way through text, as checkpoints have them."""
        return [Pass.from_state(current.to_state()) for current in self.passes]


@given(
    st.lists(st.integers(0, 6), max_size=12),
    st.lists(st.tuples(ranks, st.integers(1, 3), st.booleans(), st.lists(st.integers(0, 9), max_size=15)), max_size=3),
    st.tuples(ranks, st.integers(1, 3)),
)
def test_workers_give_each_sample_of_shards_once(
    shards: list[int], runs: list[tuple[int, int, bool, list[int]]], last: tuple[int, int]
) -> None:
    read, before = list[tuple[int, int]](), EpochProgress()
    for size, workers, same, amounts in runs:
        run = Run(shards, before, size, workers, drop_uneven=False)
        for _ in range(1 + same):  # goes on with as many, then with another number
            for current, amount in zip(run.passes, amounts, strict=False):
                read += run.read(current, amount)
            run.passes = run.states()
        before = together(run.passes, DIGEST, len(shards))
    run = Run(shards, before, *last, drop_uneven=False)
    read += [sample for current in run.passes for sample in run.read(current)]
    assert sorted(read) == [(shard, sample) for shard, size in enumerate(shards) for sample in range(size)]


@given(st.integers(0, 30), ranks, st.integers(1, 3))
def test_each_rank_has_as_many_shards(count: int, size: int, workers: int) -> None:
    run = Run([1] * count, EpochProgress(), size, workers, drop_uneven=True)
    read = [len(run.read(current)) for current in run.passes]
    assert {sum(read[rank * workers : (rank + 1) * workers]) for rank in range(size)} == {count // size}


def test_missing_state_is_refused() -> None:
    run = Run([3, 3, 3], EpochProgress(), 2, 2, drop_uneven=False)
    with pytest.raises(UsageError, match="not the states of 2 ranks with 2 workers each"):
        together(run.states()[:3], DIGEST, 3)
    with pytest.raises(UsageError, match="not the states"):
        together([*run.states()[:3], run.states()[0]], DIGEST, 3)


def test_samples_are_grouped_as_webdataset_does() -> None:
    paths = ["a.b/1.jpg", "a.b/1.seg.png", "a.b/2.jpg", "plain", ".hidden", "a.b/.x.y"]
    assert group_samples(paths) == {
        "a.b/1": {"jpg": "a.b/1.jpg", "seg.png": "a.b/1.seg.png"},
        "a.b/2": {"jpg": "a.b/2.jpg"},
        "plain": {"": "plain"},
        ".hidden": {"": ".hidden"},
        "a.b/.x": {"y": "a.b/.x.y"},
    }


def test_states_are_found_in_a_loader_s() -> None:
    state = {"stagegate": "sampler", "epoch": 3}
    held = {"_snapshot": {"main": {"it": state}, "workers": [{"stagegate": "shards"}]}, "_steps_since_snapshot": 0}
    assert states_in(held, "sampler") == [state]
    with pytest.raises(UsageError, match="no state"):
        states_in({"epoch": 3}, "sampler")
    with pytest.raises(UsageError, match="gave batches since"):
        states_in(held | {"_steps_since_snapshot": 2}, "sampler")
