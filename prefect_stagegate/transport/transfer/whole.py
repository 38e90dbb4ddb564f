"""Objects that are read whole: hashed and written from memory, or as their bytes come."""

from __future__ import annotations

import os
import time

from prefect_stagegate.cache.ingest import Claim, write_all
from prefect_stagegate.cache.space import room
from prefect_stagegate.sources.adapter import read_pieces
from prefect_stagegate.transport.transfer.checks import Hasher, Offers
from prefect_stagegate.transport.transfer.context import Done, TransferContext, writing
from prefect_stagegate.transport.transfer.job import FetchJob


class WholeDownload:
    """One object that is read whole into its claimed file.

    Raises:
        CacheError, NoSpace: The volume can't take the object.
    """

    __slots__ = ("_context", "_hasher", "_mark", "_position", "_started", "claim", "job", "size")

    def __init__(self, context: TransferContext, job: FetchJob, claim: Claim) -> None:
        assert job.listed is not None  # noqa: S101 - looked up
        context.space.take(room(job.listed.size))
        self._context, self.job, self.claim = context, job, claim
        self.size = job.listed.size
        """The object's size as listed last, in bytes; the planned state may have had another."""

    def restart(self) -> None:
        """Start from the first byte, because a request is sent."""
        assert self.job.listed is not None  # noqa: S101
        self._hasher, self._position = Hasher(self.job.listed.checksums, self.size), 0
        # Before the first byte: a weak pin that is as young may stand for two states.
        self._started, self._mark = time.time(), time.perf_counter()

    def take(self, data: memoryview | bytes) -> None:
        """Hash and write the next bytes.

        Raises:
            CacheError: The cache can't be written.
        """
        stats = self._context.stats
        mark = stats.lap("network", self._mark)
        self._hasher.update(data)
        mark = stats.lap("hashing", mark)
        with writing(self.claim.path):
            write_all(self.claim.file, data, self._position)
        self._position += len(data)
        self._mark = stats.lap("disk", mark)

    def store(self, data: bytes, offers: Offers = ()) -> Done | None:
        """Hash, write and commit an object that is in memory.

        `offers` are checksums of the response, where the listing had none.

        Returns:
            None where the bytes fail a checksum of the source's. Then `finish` asks the source about it, and waits.
        """
        if offers:
            self._hasher = Hasher(offers, self.size)
        began = time.perf_counter()
        self._hasher.update(data)
        hashed = time.perf_counter()
        with writing(self.claim.path):
            write_all(self.claim.file, data, 0)
        if self._hasher.mismatch():
            return None
        return self.finish((hashed - began, time.perf_counter() - hashed))

    def finish(self, spent: tuple[float, float] = (0.0, 0.0)) -> Done:
        """Verify the bytes and make them a blob. `spent` is as for `TransferContext.finish`.

        Raises:
            SourceError: The bytes are wrong.
            CacheError: The cache can't be written.
        """
        # An interrupted run may have left a longer file.
        if self.claim.size > self.size:
            with writing(self.claim.path):
                os.ftruncate(self.claim.file, self.size)
        return self._context.finish(
            self.job, self.claim, self._hasher, fetched=self.size, started=self._started, sync=False, spent=spent
        )

    def read_blocking(self) -> Done:
        """Read the object by its source's blocking calls.

        Raises:
            SourceError: The read failed, after the retries, or the bytes are wrong.
            CacheError: The cache can't be written.
        """
        self._context.retrier_of(self.job.source).run(self._read)
        return self.finish()

    def _read(self) -> None:
        self.restart()
        assert self.job.listed is not None  # noqa: S101
        for piece in read_pieces(self.job.source, self.job.listed, 0, self.size):
            self._context.count_received(self.job, len(piece))
            self.take(piece)
