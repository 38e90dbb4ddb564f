"""The cache, the limits and the retries of one transfer, and the steps that small and large objects share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.ingest import Claim
from prefect_stagegate.cache.layout import explained
from prefect_stagegate.cache.memory import Row, is_racy
from prefect_stagegate.cache.space import Space, Unlimited
from prefect_stagegate.model import Receipt
from prefect_stagegate.sources.adapter import Source, server_of
from prefect_stagegate.sources.replica import Replica
from prefect_stagegate.transport.transfer.buffers import Buffers
from prefect_stagegate.transport.transfer.checks import Hasher, verify_bytes
from prefect_stagegate.transport.transfer.job import FetchJob
from prefect_stagegate.transport.transfer.progress import Progress, TransferStats
from prefect_stagegate.transport.transfer.retry import Retrier, Stop, Throttle, throttle_of
from prefect_stagegate.transport.transfer_limits import BLOCK, Limits

if TYPE_CHECKING:
    from prefect_stagegate.transport.transfer.processes import RemoteClaim


@dataclass(slots=True)
class Done:
    """An object that is in the cache, before it is remembered."""

    receipt: Receipt
    claim: Claim | RemoteClaim | None = None
    """Dropped once the digest is remembered, so that a stager that waits for the claim finds the digest."""
    row: Row | None = None
    """The row of the pin memory; None for what may not be remembered."""
    unsynced: int = 0
    """Bytes that the blob takes, at least a block, when it was not synced yet; else 0."""


class TransferContext:
    """What every part of one transfer uses."""

    def __init__(
        self,
        store: Cache,
        space: Space | Unlimited,
        sources: list[Source],
        limits: Limits,
        progress: Progress,
        stop: Stop,
        stats: TransferStats,
        replicas: Sequence[Replica] = (),
    ) -> None:
        self.store, self.space, self.limits = store, space, limits
        self.progress, self.stop, self.stats = progress, stop, stats
        self.sync_failed = False
        # Sources at one server share a throttle, but each has its own budget of retries.
        self._retriers = {
            id(source): Retrier(limits.retries, stop, stats, self._throttle_of(source)) for source in sources
        }
        # A replica has no second try: its blobs are to be had elsewhere.
        self._retriers |= {id(each): Retrier(0, stop, stats, self._throttle_of(each)) for each in replicas}

    @cached_property
    def buffers(self) -> Buffers:
        """Of the parts of large objects."""
        return Buffers(self.limits.buffers, self.limits.part)

    def retrier_of(self, source: Source) -> Retrier:
        """The retries of a source."""
        return self._retriers[id(source)]

    def _throttle_of(self, source: Source) -> Throttle | None:
        return throttle_of(server_of(source.identity), self.limits.bandwidth, self.limits.connections)

    def cached(self, job: FetchJob) -> Done | None:
        """The object, if it came into the cache since it was planned: by another stager, or under another name."""
        assert job.listed is not None  # noqa: S101
        digest = job.planned.digest
        # A look costs a query, and only another stager can have fetched the object since it was planned. Of a large one
        # it costs little, and `shared` may be a second late.
        is_large = job.listed.size > self.limits.part
        if not digest and not job.planned.doubted and (job.deferred or is_large or self.store.memory.shared):
            (remembered,) = self.store.memory.recall_many([(job.source.identity, job.listed)])
            digest = remembered or ""
        if not digest or not self.store.blobs.holds(digest, job.listed.size):
            return None
        return Done(self._receipt(job, digest, fetched=0, by_server=False))

    def count_received(self, job: FetchJob, count: int) -> None:
        """Count bytes that a blocking read received. Waits where the bandwidth is limited.

        Raises:
            Cancelled: It is time to stop.
        """
        self.stop.check()
        self.report_received(count)
        if throttle := self.retrier_of(job.source).throttle:
            throttle.spend(count, self.stop)

    def report_received(self, count: int) -> None:
        """Report bytes that came over the wire."""
        self.progress.moved(count)

    def finish(
        self,
        job: FetchJob,
        claim: Claim,
        hasher: Hasher,
        *,
        fetched: int,
        started: float,
        sync: bool,
        spent: tuple[float, float] = (0.0, 0.0),
    ) -> Done:
        """Verify the bytes of the claimed file and make them a blob.

        `hasher` has hashed all of them, and `fetched` of them came over the wire in this run. The first one was read at
        `started`, in seconds since the epoch. `spent` are seconds of hashing and of writing that nobody counted yet.
        """
        listed = job.listed
        assert listed is not None  # noqa: S101
        began = time.perf_counter()
        by_server, digest = verify_bytes(job, hasher), hasher.digest()
        verified = time.perf_counter()
        # After the last byte and before the blob has its name: the object may have changed while it was read.
        job.source.confirm(listed)
        confirmed = time.perf_counter()
        synced = self.store.blobs.commit(claim, digest, listed.size, sync=sync)
        hashing, disk = spent[0] + verified - began, spent[1] + time.perf_counter() - confirmed
        self.stats.count_stored(job.place, fetched, hashing=hashing, disk=disk)
        receipt = self._receipt(job, digest, fetched=fetched, by_server=by_server)
        return Done(receipt, claim, self._row(job, digest, started), 0 if synced else max(listed.size, BLOCK))

    def _receipt(self, job: FetchJob, digest: str, *, fetched: int, by_server: bool) -> Receipt:
        # A mirror's or a node's copy counts as the object that the source listed.
        listed = job.planned.object if job.is_copy or job.listed is None else job.listed
        return Receipt(job.planned.path, listed, job.planned.source, digest, job.proof(by_server=by_server), fetched)

    def _row(self, job: FetchJob, digest: str, started: float) -> Row | None:
        """The row to remember, or None: without a planned digest, a mirror's bytes don't prove the source's pin."""
        listed = job.planned.object if job.is_copy else job.listed
        assert listed is not None  # noqa: S101
        # A weak pin as young as this may name other bytes soon.
        if is_racy(listed, started) or (job.member and not job.planned.digest):
            return None
        return (job.sources[0].identity, listed.key, listed.pin, listed.size, digest)


def writing(path: str) -> explained:
    """Turn an `OSError` of the block, which writes to the ingest file `path`, into a `CacheError`."""
    return explained("write an object", path)
