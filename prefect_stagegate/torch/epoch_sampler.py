"""The sampler: which samples this rank reads in an epoch, in which order, and where to go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import UsageError
from prefect_stagegate.torch.epoch_order import check_state, epoch_order, growing_chunks, rank_share, states_in
from prefect_stagegate.torch.ranks import rank_and_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect_stagegate.torch.file_datasets import AnyDataset

KIND = "sampler"


class EpochSampler:
    """Gives each sample once an epoch to one rank, in an order of digest, seed and epoch, and has files fetched so.

    A pass that ended is followed by the next epoch, unless `set_epoch` names another. `epoch` is that of this pass.

    Resume: each rank loads the state of rank 0, also where the number of ranks is another, and its next pass gives the
    rest of the epoch, or the next epoch where nothing is left. That all ranks have read as many samples is assumed, as
    data-parallel training has them.

    Args:
        samples: A `FileDataset` or `SampleDataset`.
        seed: Any number; all ranks need the same.
        shuffle: False gives the samples in their own order.
        rank: This process; by default torch.distributed's where it is initialised, else that of RANK.
        world_size: How many there are, likewise.
        drop_uneven: Whether to leave out the last samples, fewer than there are ranks, so that each rank has as many.
            Otherwise, ranks differ by one sample at most, and none is left out or repeated.

    Raises:
        UsageError: There is no such rank.
    """

    def __init__(
        self,
        samples: AnyDataset,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        drop_uneven: bool = False,
    ) -> None:
        self.seed, self.shuffle, self.drop_uneven = seed, shuffle, drop_uneven
        self.rank, self.ranks = rank_and_ranks(rank, world_size)
        self.epoch = 0
        self._samples = samples
        self._before = 0
        """Samples that all ranks read of this epoch before this pass."""
        self._given = 0
        """Samples that this pass gave."""
        self._has_ended = False

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass begin this epoch; one that is begun and not ended goes on."""
        if epoch != self.epoch or self._has_ended:
            self.epoch, self._before, self._given, self._has_ended = epoch, 0, 0, False

    def __len__(self) -> int:
        """How many samples the next pass gives."""
        return len(self._share(range(len(self._samples)), 0 if self._has_ended else self._before))

    def __iter__(self) -> Iterator[int]:
        if self._has_ended:
            self.set_epoch(self.epoch + 1)
        self._given = 0
        count = len(self._samples)
        order = epoch_order(self._samples.data.digest, self.seed, self.epoch, count) if self.shuffle else range(count)
        share = self._share(order, self._before)
        chunks = growing_chunks(len(share))
        self._prefetch(share, next(chunks, range(0)))
        for start in growing_chunks(len(share)):
            self._prefetch(share, next(chunks, range(0)))  # one chunk ahead
            for position in start:
                self._given = position + 1
                yield share[position]
        self._has_ended = True

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Where the epoch stands: numbers and short texts.

        Args:
            consumed: Samples that this rank was trained on since this pass began. By default, those that the sampler
                gave, which a StatefulDataLoader corrects. A plain DataLoader with workers is ahead of what it returned,
                by `prefetch_factor * num_workers` batches, so give `batches * batch_size` there.
        """
        given = self._given if consumed is None else consumed
        count = len(self._samples)
        is_over = given >= len(self._share(range(count), self._before))
        return {
            "stagegate": KIND,
            "dataset": self._samples.data.dataset,
            "digest": self._samples.data.digest,
            "selection": self._samples.selection,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "epoch": self.epoch,
            "consumed": count if is_over else self._before + given * self.ranks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken: this class', or a StatefulDataLoader's that holds one.

        Its seed and `shuffle` replace those of this sampler.

        Raises:
            UsageError: It is of another version, whose digest the error names, of other files, or no state.
        """
        states = states_in(state, KIND)
        (fields, *others), data = states, self._samples.data
        check_state(fields, data.dataset, data.digest, self._samples.selection)
        consumed, epoch, seed = (fields.get(name) for name in ("consumed", "epoch", "seed"))
        numbers = all(isinstance(number, int) for number in (consumed, epoch, seed))
        if others or not numbers or not 0 <= consumed <= len(self._samples):  # type: ignore[operator]
            raise UsageError("This is no state of one sampler", hint="Load the state of rank 0 in each rank.")
        self.seed, self.shuffle = seed, fields.get("shuffle") is True  # type: ignore[assignment]
        self.epoch, self._before, self._given, self._has_ended = epoch, consumed, 0, False  # type: ignore[assignment]
        if not self._share(range(len(self._samples)), self._before, rank=0):
            self.epoch, self._before = self.epoch + 1, 0

    def _share(self, order: Sequence[int], before: int, rank: int | None = None) -> Sequence[int]:
        return rank_share(order[before:], self.rank if rank is None else rank, self.ranks, drop_uneven=self.drop_uneven)

    def _prefetch(self, share: Sequence[int], positions: range) -> None:
        self._samples.prefetch(share[position] for position in positions)
