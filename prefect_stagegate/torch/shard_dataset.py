"""The iterable dataset: samples of shards, which ranks and workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch.utils.data import IterableDataset, get_worker_info

from prefect_stagegate.errors import UsageError
from prefect_stagegate.torch.epoch_order import check_state, selection_of, states_in
from prefect_stagegate.torch.file_datasets import select_files
from prefect_stagegate.torch.ranks import rank_and_ranks
from prefect_stagegate.torch.shard_progress import Consumer, EpochProgress, Pass, together

if TYPE_CHECKING:
    from prefect_stagegate.jobs.arriving import ArrivingDataset

Sample = TypeVar("Sample")
KIND = "shards"
AHEAD = 4
"""Shards that each worker has fetched ahead of the others."""


class ShardDataset(IterableDataset[Sample], Generic[Sample]):  # type: ignore[misc]
    """The samples of an arriving version's shards, in an order of digest, seed and epoch.

    Each shard is read by one worker of one rank, its samples in their own order. Call `set_epoch` before each epoch.

    Resume with as many ranks and workers: each rank's StatefulDataLoader loads the state that it gave. With others:
    `load_state_dict` of each rank's dataset, before its loader begins, takes the list of all ranks' states, of one
    moment. The next pass gives the rest of the epoch; a shard that was begun is read again up to there.

    Args:
        data: What `open_dataset(…, wait=False)` gives. Read inside of its block.
        read: Gives the samples of a shard's path, which may be a blob's, without a suffix: `read_tar`, `read_parquet`
            or a function of your own. The same path must give the same samples again.
        files: A pattern, as `data.glob` takes it, or paths.
        seed: Any number; all ranks need the same.
        shuffle: False reads the shards in the manifest's order.
        rank: This process; by default torch.distributed's where it is initialised, else that of RANK.
        world_size: How many there are, likewise.
        drop_uneven: Whether to leave out the last shards, fewer than there are ranks, so that each rank has as many.

    Raises:
        UsageError: There is no such file or rank.
    """

    def __init__(
        self,
        data: ArrivingDataset,
        read: Callable[[Path], Iterable[Sample]],
        files: str | Iterable[str] = "*",
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        drop_uneven: bool = False,
    ) -> None:
        self.data, self._read = data, read
        self.names = select_files(data, files)
        """The shards' paths, in the manifest's order."""
        self.selection = selection_of(self.names)
        self.seed, self.shuffle, self.drop_uneven = seed, shuffle, drop_uneven
        self.rank, self.ranks = rank_and_ranks(rank, world_size)
        self._shared = torch.zeros(2, dtype=torch.int64).share_memory_()
        """The epoch, which workers that persist see, and whether workers read."""
        self._resumed: list[Pass] = []
        self._is_of_worker = False
        """Whether the worker itself loaded its state, and so knows its epoch."""
        self._pass: Pass | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the next pass."""
        return int(self._shared[0])

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass begin this epoch. One whose state was loaded goes on."""
        self._shared[0] = epoch

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        self._shared[1] = worker is not None
        self._pass = begun = self._begin(self._consumer())
        return self._samples(begun)

    def _consumer(self) -> Consumer:
        worker = get_worker_info()
        return Consumer(self.rank, self.ranks, *((worker.id, worker.num_workers) if worker else ()))

    def _begin(self, consumer: Consumer) -> Pass:
        """The pass of a worker: the rest of what was resumed, else a whole epoch."""
        states = self._resumed
        if not states or not (self._is_of_worker or states[0].epoch == self.epoch):
            return Pass(self.seed, self.shuffle, self.epoch, EpochProgress(), consumer, self.drop_uneven)
        if len(states) == 1 and states[0].consumer == consumer:
            return replace(states[0])
        first = states[0]
        return Pass(
            first.seed,
            first.shuffle,
            first.epoch,
            together(self._resumed, self.data.digest, len(self.names)),
            consumer,
            self.drop_uneven,
        )

    def _samples(self, current: Pass) -> Iterator[Sample]:
        yield from current.read(self.data.digest, len(self.names), self._read_first)
        if current is self._pass:
            self._resumed = []

    def _read_first(self, shards: Sequence[int]) -> Iterator[Sample]:
        """The samples of the first of some shards, and have the next ones fetched."""
        name, *_ = names = [self.names[shard] for shard in shards[: 1 + AHEAD]]
        self.data.prefetch(names)  # in this order, also where one is begun before this process waits for it
        path = self.data.path(name)
        try:
            yield from self._read(path)
        except Exception as error:
            error.add_note(f"while reading {name}")  # its reader had a blob's path
            raise

    def state_dict(self) -> dict[str, Any]:
        """Where this worker's part of the epoch stands: numbers and short texts.

        Raises:
            UsageError: A plain DataLoader's workers read it; only a StatefulDataLoader knows their states.
        """
        if get_worker_info() is None and self._shared[1]:
            raise UsageError(
                "The workers of a DataLoader read these shards, and this process doesn't know how far they are",
                hint="Use torchdata's StatefulDataLoader, and its state_dict().",
                dataset=self.data.dataset,
            )
        current = self._pass or self._begin(self._consumer())
        data = {"dataset": self.data.dataset, "digest": self.data.digest, "selection": self.selection}
        return {"stagegate": KIND, **data, **current.to_state()}

    def load_state_dict(self, state: object) -> None:
        """Go on where a state was taken, or where several were: in a list, or in StatefulDataLoaders' states.

        Raises:
            UsageError: It is of another version, whose digest the error names, of other files, or no state.
        """
        states = states_in(state, KIND)
        for each in states:
            check_state(each, self.data.dataset, self.data.digest, self.selection)
        self._resumed, self._pass = [Pass.from_state(each) for each in states], None
        self._is_of_worker = get_worker_info() is not None
        if not self._is_of_worker:
            self.set_epoch(self._resumed[0].epoch)
            self._shared[1] = 0
            self._leave_finished_epoch()

    def _leave_finished_epoch(self) -> None:
        """Go on with the next epoch where nothing is left of this one."""
        first, count = self._resumed[0], len(self.names)
        if len(self._resumed) == 1 and first.consumer == self._consumer():
            is_over = first.position == len(first.shards(self.data.digest, count))
        else:
            progress = together(self._resumed, self.data.digest, len(self.names))
            rest = Pass(first.seed, first.shuffle, first.epoch, progress, Consumer(0, self.ranks), self.drop_uneven)
            is_over = not rest.shards(self.data.digest, count)
        if is_over:
            self._resumed = []
            self.set_epoch(first.epoch + 1)
