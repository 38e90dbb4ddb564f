"""Plan + sources + cache → receipts: every planned object's bytes in the cache, verified.

    plan ──→ engine: claim → read → hash and write → verify → commit ──→ remember ──→ receipts

This package alone retries reads, with a budget for each source. What is in the cache stays there, whatever ends a
transfer: the next run continues from it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.space import Space, SpaceRules
from prefect_stagegate.errors import CacheError, TransferFailed
from prefect_stagegate.model import PlannedObject, Receipt
from prefect_stagegate.transport.transfer.context import Done, TransferContext
from prefect_stagegate.transport.transfer.job import SourceGroup, replicas_of
from prefect_stagegate.transport.transfer.progress import Progress, TransferStats
from prefect_stagegate.transport.transfer.retry import Stop
from prefect_stagegate.transport.transfer.transfer_engine import TransferEngine
from prefect_stagegate.transport.transfer_limits import Limits

__all__ = ["Limits", "Progress", "SourceGroup", "Transfer", "TransferStats", "transfer"]

BATCH = 256
"""Objects that are remembered in one transaction. The claim of each is an open file until then."""
UNSYNCED = 64 << 20
"""Bytes of small objects between two syncs. A power cut loses no more, and the last sync is short."""
BATCH_SECONDS = 0.2
"""Longest wait for the next batch of results: a transaction for each few objects would cost too much."""


class Transfer(Iterable[Receipt]):
    """A transfer that runs while its receipts are taken. Take all receipts, or close it.

    Attributes:
        stats: Figures so far, with the failures.
    """

    def __init__(self, receipts: Generator[Receipt], stats: TransferStats) -> None:
        self._receipts = receipts
        self.stats = stats

    def __iter__(self) -> Iterator[Receipt]:
        return self._receipts

    def close(self) -> None:
        """Stop the transfer; what was fetched stays in the cache."""
        self._receipts.close()


def transfer(  # noqa: PLR0913 - all but two are optional
    plan: Iterable[PlannedObject],
    sources: Sequence[SourceGroup],
    cache: Cache,
    *,
    space: Space | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    max_failed: int = 0,
    processes: Callable[[], int] = lambda: 1,
) -> Transfer:
    """Fetch every planned object's bytes into the cache.

    Another thread reads the plan while objects are fetched. Receipts come in the order in which objects are done.
    `limits` bound the memory, whatever the size and number of objects. Everything is durable when the iterator has
    ended.

    Args:
        plan: What to do with each object.
        sources: The sources, by the position that planned objects name.
        cache: Where the bytes go.
        space: What the transfer may fill; by default all that the volume has free.
        limits: How much the transfer may use of machine and network.
        progress: Called as the transfer goes on, from several threads.
        cancel: Set it to stop within two seconds.
        max_failed: Objects that may fail; `stats.failures` has them.
        processes: Gives the most processes that may read, this one included; asked only where there is much to read.

    Raises:
        TransferFailed: More objects failed; each is named with its reason.
        Cancelled: `cancel` was set.
        CacheError, NoSpace: The cache can't store the bytes.
        StagegateError: What reading the plan raised.
    """
    limits, progress, stats = limits or Limits(), progress or Progress(), TransferStats()
    stop = Stop(cancel)
    members = [source for group in sources for source in group.members()]
    space = space or Space(cache.layout, SpaceRules())
    context = TransferContext(cache, space, members, limits, progress, stop, stats, replicas_of(sources))
    return Transfer(
        _run(context, lambda: TransferEngine(context, plan, sources, max_failed, processes), max_failed), stats
    )


def _run(context: TransferContext, make_engine: Callable[[], TransferEngine], max_failed: int) -> Generator[Receipt]:
    # Only now, with the first receipt: an engine that is never started would leave its files open.
    engine = make_engine()
    context.stats.start()
    engine.start()
    unsynced, is_synced = 0, False
    try:
        try:
            for batch in _batches(engine, context.stop):
                _remember(context, batch)
                yield from _receipts(context, batch)
                unsynced += sum(done.unsynced for done in batch)
                if unsynced > UNSYNCED:
                    _sync(context)
                    unsynced = 0
            if engine.fatal:
                raise engine.fatal
            if context.stop.cancelled:
                context.stop.check()
        finally:
            engine.stop()
            # What came in before the stop is remembered too, so that the next run reuses it.
            try:
                while batch := engine.results.take(BATCH):
                    _remember(context, batch)
                    _drop_claims(batch)
            finally:
                # Last: threads that were left behind may add results until then, which hold claims.
                engine.results.close()
        # Before failures are raised: what came in is durable, whatever else failed.
        _sync(context)
        is_synced = True
    finally:
        engine.end(is_synced=is_synced)
        if context.sync_failed:
            context.store.blobs.discard_unsynced()
    context.stats.end()
    if len(context.stats.failures) > max_failed:
        raise TransferFailed(context.stats.failures)


def _batches(engine: TransferEngine, stop: Stop) -> Iterator[list[Done]]:
    """The results in batches, until all objects are done or something ends the transfer."""
    ended = False
    while not ended and not stop:
        ended = engine.wait(BATCH_SECONDS)
        while batch := engine.results.take(BATCH):
            yield batch
            if len(batch) < BATCH:
                break


def _remember(context: TransferContext, batch: list[Done]) -> None:
    """Remember the digests of a batch; drop its claims where that fails."""
    try:
        context.store.memory.remember(row for done in batch if (row := done.row))
    except BaseException:
        _drop_claims(batch)
        raise


def _sync(context: TransferContext) -> None:
    """Sync the blobs that came in so far, and then confirm their digests in the memory."""
    began = time.perf_counter()
    try:
        context.store.memory.confirm(context.store.blobs.sync)
    except CacheError:
        context.sync_failed = True
        raise
    context.stats.add_seconds("disk", time.perf_counter() - began)


def _receipts(context: TransferContext, batch: list[Done]) -> Iterator[Receipt]:
    """Give each receipt, and drop the claims when the caller has taken all of the batch.

    Until then the claims' files keep the blobs from being collected. Another stager that waits for a claim finds the
    digest remembered.
    """
    try:
        for done in batch:
            context.stats.count(done.receipt)
            context.progress.done(done.receipt)
            yield done.receipt
    finally:
        _drop_claims(batch)


def _drop_claims(batch: Iterable[Done]) -> None:
    for done in batch:
        if done.claim:
            done.claim.drop()
