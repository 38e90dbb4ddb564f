"""Which shards the workers of ranks read in an epoch, and what is left of it. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, TypeVar

from prefect_stagegate.errors import UsageError
from prefect_stagegate.torch.epoch_order import epoch_order, rank_share

Sample = TypeVar("Sample")


@dataclass(frozen=True, slots=True)
class Consumer:
    """A worker of a rank, which reads a part of the shards. A rank without workers is one."""

    rank: int
    ranks: int
    worker: int = 0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class EpochProgress:
    """What was given of an epoch's shards: numbers of those that are finished, and samples of those that are begun."""

    finished: frozenset[int] = frozenset()
    begun: Mapping[int, int] = field(default_factory=dict)

    def shards(self, order: Sequence[int], consumer: Consumer, *, drop_uneven: bool) -> list[int]:
        """The shards that a consumer reads, if all consumers go on from here."""
        rest = [shard for shard in order if shard not in self.finished]
        share = rank_share(rest, consumer.rank, consumer.ranks, drop_uneven=drop_uneven)
        return list(share[consumer.worker :: consumer.workers])


def merged(parts: Iterable[EpochProgress]) -> EpochProgress:
    """What several consumers gave together."""
    finished: set[int] = set()
    begun: dict[int, int] = {}
    for part in parts:
        finished |= part.finished
        for shard, samples in part.begun.items():
            begun[shard] = max(samples, begun.get(shard, 0))
    return EpochProgress(frozenset(finished), {shard: n for shard, n in begun.items() if shard not in finished})


@dataclass(slots=True)
class Pass:
    """One worker's reading of its shards in an epoch."""

    seed: int
    shuffle: bool
    epoch: int
    before: EpochProgress
    consumer: Consumer
    drop_uneven: bool
    position: int = 0
    """Shards that this worker has finished."""
    given: int = 0
    """Samples that were given of the shard at this position, those of earlier passes among them."""

    def shards(self, digest: str, count: int) -> list[int]:
        """The numbers of the worker's shards, in order."""
        order = epoch_order(digest, self.seed, self.epoch, count) if self.shuffle else range(count)
        return self.before.shards(order, self.consumer, drop_uneven=self.drop_uneven)

    def read(self, digest: str, count: int, read: Callable[[Sequence[int]], Iterable[Sample]]) -> Iterator[Sample]:
        """The samples of the worker's shards, from where it stands. `read` is given a shard and those behind it."""
        shards = self.shards(digest, count)
        while self.position < len(shards):
            self.given = self.given or self.before.begun.get(shards[self.position], 0)
            for sample in islice(read(shards[self.position :]), self.given, None):
                self.given += 1  # before it is given: a state that is taken then has it
                yield sample
            self.position, self.given = self.position + 1, 0

    def progress(self, digest: str, count: int) -> EpochProgress:
        """What was given of the epoch, as far as this worker knows."""
        shards = self.shards(digest, count)
        finished = self.before.finished.union(shards[: self.position])
        begun = {shards[self.position]: self.given} if self.given and self.position < len(shards) else {}
        return merged([self.before, EpochProgress(finished, begun)])

    def to_state(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        finished, begun = sorted(self.before.finished), sorted(map(list, self.before.begun.items()))
        fields = {
            name: getattr(self, name) for name in ("seed", "shuffle", "epoch", "drop_uneven", "position", "given")
        }
        return {**fields, "finished": finished, "begun": begun, **asdict(self.consumer)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Pass:
        """Read what `to_state` wrote.

        Raises:
            UsageError: It is no such state.
        """
        try:
            numbers = {name: int(state[name]) for name in ("seed", "epoch", "position", "given")}
            flags = {name: state[name] is True for name in ("shuffle", "drop_uneven")}
            begun = {int(shard): int(samples) for shard, samples in state["begun"]}
            before = EpochProgress(frozenset(map(int, state["finished"])), begun)
            consumer = Consumer(*(int(state[name]) for name in ("rank", "ranks", "worker", "workers")))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("This is no state of shards", hint="Give what its `state_dict()` returned.") from error
        return cls(before=before, consumer=consumer, **numbers, **flags)  # type: ignore[arg-type]


def together(passes: Sequence[Pass], digest: str, count: int) -> EpochProgress:
    """What all workers of all ranks gave.

    Raises:
        UsageError: The pass of one is missing, or they are not of one epoch.
    """
    ranks, workers = passes[0].consumer.ranks, passes[0].consumer.workers
    begun = {(each.seed, each.shuffle, each.epoch, each.drop_uneven, each.before.finished) for each in passes}
    consumers = {Consumer(rank, ranks, worker, workers) for rank in range(ranks) for worker in range(workers)}
    if len(begun) != 1 or len(passes) != len(consumers) or {each.consumer for each in passes} != consumers:
        raise UsageError(
            f"These are not the states of {ranks} ranks with {workers} workers each, of one moment",
            hint="With another number of ranks or workers, load the list of all ranks' states.",
        )
    return merged(each.progress(digest, count) for each in passes)
