"""Plan + sources + cache → receipts: every planned object's bytes in the cache, verified.

    plan ──→ engine: claim → read → hash and write → judge → commit ──→ remember ──→ receipts

Retries have one owner, and it is here: per read, with a budget per source. What is in the cache stays there, whatever
ends a transfer: the next run goes on from it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from prefect_stagegate.cache.space import Space, SpaceRules
from prefect_stagegate.errors import Cancelled, TransferFailed
from prefect_stagegate.model import PlannedObject, Receipt
from prefect_stagegate.transfer.context import Done, Store, TransferContext
from prefect_stagegate.transfer.engine import Engine
from prefect_stagegate.transfer.job import SourceGroup
from prefect_stagegate.transfer.limits import Limits
from prefect_stagegate.transfer.progress import Progress, Silent, TransferStats
from prefect_stagegate.transfer.stop import Stop

__all__ = ["Limits", "Progress", "SourceGroup", "Transfer", "TransferStats", "transfer"]

BATCH = 256
"""Objects that are remembered in one transaction. The claim of each is an open file until then."""
UNSYNCED = 64 << 20
"""Bytes of small objects between two syncs: a power cut costs no more, and at the end little is left to wait for."""
BATCH_SECONDS = 0.05
"""How often results are looked at, unless many come."""


class Transfer(Iterator[Receipt]):
    """A transfer that runs while its receipts are taken. Close it, or take all of them.

    Attributes:
        stats: What was done so far, with the failures.
    """

    def __init__(self, receipts: Iterator[Receipt], stats: TransferStats) -> None:
        self._receipts = receipts
        self.stats = stats

    def __next__(self) -> Receipt:
        return next(self._receipts)

    def close(self) -> None:
        """Stop; what was fetched stays."""
        if hasattr(self._receipts, "close"):
            self._receipts.close()


def transfer(
    plan: Iterable[PlannedObject],
    sources: Sequence[SourceGroup],
    cache: Store,
    *,
    space: Space | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    max_failed: int = 0,
) -> Transfer:
    """Bring every planned object's bytes into the cache.

    The plan is read by another thread, lazily, while objects are brought in. Receipts come as objects are done. Memory
    is bounded by `limits`, never by the size or the number of objects. When the last receipt was given and the iterator
    has ended, everything is durable.

    Args:
        plan: What to do with each object.
        sources: The sources, by the position that planned objects name.
        cache: Where the bytes go.
        space: What the transfer may fill; by default all that the volume has free.
        limits: How much may be taken of machine and network.
        progress: Told what happens, from several threads.
        cancel: Set it to stop within two seconds.
        max_failed: Objects that may fail; `stats.failures` has them.

    Raises:
        TransferFailed: More objects failed; each is named with its reason.
        Cancelled: `cancel` was set.
        CacheError, NoSpace: The cache can't take the bytes.
        StagegateError: What reading the plan raised.
    """
    limits, progress, stats = limits or Limits(), progress or Silent(), TransferStats()
    stop = Stop(cancel)
    members = [source for group in sources for source in group.members()]
    space = space or Space(cache.layout, SpaceRules())
    context = TransferContext(cache, space, members, limits, progress, stop, stats)
    return Transfer(_run(context, lambda: Engine(context, plan, sources, max_failed), max_failed), stats)


def _run(context: TransferContext, make: Callable[[], Engine], max_failed: int) -> Iterator[Receipt]:
    engine = make()  # now: one that is never run would leave its files open
    engine.start()
    unsynced = 0
    try:
        for batch in _batches(engine, context.stop):
            _remember(context, batch)
            yield from _given(context, batch)
            unsynced += sum(done.unsynced for done in batch)
            if unsynced > UNSYNCED:
                _sync(context)
                unsynced = 0
        if engine.fatal:
            raise engine.fatal
        if context.stop.cancelled:
            raise Cancelled("The transfer was stopped", hint="Run it again: what was fetched stays.")
    finally:
        engine.stop()
        try:
            while batch := _taken(engine):
                _remember(context, batch)
                _drop_claims(batch)
        finally:
            engine.close()
    _sync(context)
    if len(context.stats.failures) > max_failed:
        raise TransferFailed(context.stats.failures)


def _batches(engine: Engine, stop: Stop) -> Iterator[list[Done]]:
    """The results in batches, until all threads have ended or something ends the transfer."""
    ended = False
    while not ended and not stop:
        ended = engine.wait(BATCH_SECONDS)
        while batch := _taken(engine):
            yield batch
            if len(batch) < BATCH:
                break  # a transaction for each of the few that came meanwhile would cost more than they do


def _remember(context: TransferContext, batch: list[Done]) -> None:
    """Remember the digests of a batch, or drop its claims."""
    try:
        context.store.memory.remember(row for done in batch if (row := done.row))
    except BaseException:
        _drop_claims(batch)
        raise


def _sync(context: TransferContext) -> None:
    """Make durable what came in so far, and let the memory know."""
    context.store.memory.confirm(context.store.blobs.sync)


def _taken(engine: Engine) -> list[Done]:
    return [engine.results.popleft() for _ in range(min(len(engine.results), BATCH))]


def _given(context: TransferContext, batch: list[Done]) -> Iterator[Receipt]:
    """Give each receipt, and let go of its claim when the next one is asked for.

    The claim's file is what holds the blob until the caller does, and who waits for the claim finds the digest
    remembered.
    """
    left = deque(batch)
    try:
        while left:
            receipt = left[0].receipt
            context.stats.count(receipt)
            context.progress.done(receipt)
            yield receipt
            _drop_claims([left.popleft()])
    finally:
        _drop_claims(left)


def _drop_claims(batch: Iterable[Done]) -> None:
    for done in batch:
        if done.claim:
            done.claim.drop()
