"""Simulated accelerators that real readers feed, as MLPerf Storage measures a volume.

Each accelerator takes a batch, sleeps for the time of a step, and takes the next one. Its readers read ahead meanwhile,
as a loader's workers do, but don't decode. The busy share is the part of the time that the accelerators sleep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.errors import CacheError
from prefect_stagegate.plugins.node.feed import DROPPING, GRACE, Piece, Reader, cut, run_all
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.node.tiers import Reading, TierMeter
from prefect_stagegate.spec import JobSpec

SMALLEST = 64 * 1024
"""Smallest read, in bytes: smaller samples lie together in one file, and a loader reads many of them at once."""


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a simulation."""

    reading: Reading
    steps: int
    """Batches that all accelerators together took."""
    busy: float
    """Seconds that the accelerators computed, summed over all of them."""
    elapsed: float
    """Seconds from each accelerator's first batch to its end, summed over all of them."""
    exhausted: bool
    """Whether all files were read before the time was over."""

    @property
    def share(self) -> float:
        """The busy share, 0 to 1."""
        return min(self.busy / self.elapsed, 1.0) if self.elapsed else 0.0


def simulate(files: Sequence[tuple[Path, int]], job: JobSpec, *, seconds: float, machine: Machine) -> Run:
    """Run a job's accelerators and readers over files, each byte once, until the files or the time end.

    Raises:
        CacheError: A file can't be read, or a read does not come back.
    """
    begun = time.monotonic()
    deadline = begun + seconds
    meter = TierMeter(files, begun + DROPPING * seconds, machine)
    source = Batches(meter.files, job.batch_bytes, max(job.sample_size, SMALLEST))
    accelerators = [Accelerator(source, job, deadline) for _ in range(job.accelerators)]
    readers = [accelerator.read for accelerator in accelerators for _ in range(job.readers)]
    run_all([*(accelerator.compute for accelerator in accelerators), *readers], deadline + GRACE, meter.begin)
    return Run(
        meter.reading(sum(accelerator.bytes for accelerator in accelerators)),
        sum(accelerator.steps for accelerator in accelerators),
        sum(accelerator.busy for accelerator in accelerators),
        sum(accelerator.elapsed for accelerator in accelerators),
        source.exhausted,
    )


def batches(files: Iterable[tuple[Path, int]], size: int, largest: int) -> Iterator[list[Piece]]:
    """Cut files into batches of `size` bytes, in pieces of at most `largest`. An incomplete last batch is dropped."""
    batch: list[Piece] = []
    missing = size
    for piece in cut(files, largest):
        offset, left = piece.offset, piece.length
        while left:
            length = min(left, missing)
            batch.append(Piece(piece.file, offset, length))
            offset, left, missing = offset + length, left - length, missing - length
            if not missing:
                yield batch
                batch, missing = [], size


class Batches:
    """The queue of batches that all accelerators share."""

    def __init__(self, files: Sequence[tuple[Path, int]], size: int, largest: int) -> None:
        self._left = batches(files, size, largest)
        self._lock = threading.Lock()
        self.exhausted = False

    def take(self) -> list[Piece] | None:
        """The next batch; None when there are no more."""
        with self._lock:
            batch = next(self._left, None)
            self.exhausted = batch is None
            return batch


class Accelerator:
    """One accelerator and its readers, which together read batch after batch, a few of them ahead."""

    def __init__(self, source: Batches, job: JobSpec, deadline: float) -> None:
        self._source = source
        self._job = job
        self._deadline = deadline
        self._changed = threading.Condition()
        self._batches_begun = 0
        self._pieces: list[Piece] = []
        """Pieces of the newest batch that no reader has taken."""
        self._unread: dict[int, int] = {}
        """How many pieces of each batch are still to be read, by the batch's number."""
        self._ended = False
        """Whether the shared queue has no more batches."""
        self.bytes = 0
        self.steps = 0
        self.busy = 0.0
        self.elapsed = 0.0

    def compute(self) -> None:
        """Take batch after batch, and sleep for a step on each, until the last one is taken or the time is over.

        The time from the first batch to the last is measured, without the step of the last: waiting for the very
        first batch is no shortage, and after the last one there is nothing to wait for.
        """
        started = time.monotonic()
        while self._take():
            if self.steps == 1:
                started = time.monotonic()
            if self._ended and self.steps >= self._batches_begun:
                break
            step = min(self._job.step_time, max(self._left(), 0))
            time.sleep(step)
            self.busy += step
        self.elapsed = time.monotonic() - started

    def read(self) -> None:
        """Read pieces of the next batches, as one of several readers.

        Raises:
            CacheError: A file can't be read. The accelerator then ends.
        """
        # Through the page cache, as the loader of a job reads.
        reader = Reader(direct=False)
        try:
            while (next_piece := self._next()) is not None:
                number, piece = next_piece
                count = reader.read(piece)
                with self._changed:
                    self.bytes += count
                    self._unread[number] -= 1
                    self._changed.notify_all()
        except CacheError:
            with self._changed:
                self._deadline = 0.0  # ends the accelerator and its other readers
                self._changed.notify_all()
            raise

    def _next(self) -> tuple[int, Piece] | None:
        """The next piece to read, with its batch's number; None at the end of the files or of the time."""
        with self._changed:
            while not self._pieces and not self._ended:
                # Begin another batch only while fewer than `prefetch` of those begun wait to be taken.
                if self._batches_begun - self.steps < self._job.prefetch:
                    self._begin()
                elif not self._changed.wait(self._left()):
                    return None
            if not self._pieces or self._left() <= 0:
                return None
            return self._batches_begun - 1, self._pieces.pop()

    def _begin(self) -> None:
        """Take the next batch from the shared queue, and offer its pieces to the readers."""
        batch = self._source.take()
        if batch is None:
            self._ended = True
            self._changed.notify_all()
            return
        # All readers share one batch. With a batch each, the first ones would be ready at once, and a short run would
        # look like an accelerator that never waits.
        self._pieces = batch[::-1]  # readers pop from the end
        self._unread[self._batches_begun] = len(batch)
        self._batches_begun += 1

    def _take(self) -> bool:
        """Wait for the next batch and take it; False when there is none, or the time is over."""
        with self._changed:
            # A batch that no reader has begun yet has no entry, and counts as unread.
            while self._left() > 0 and self._unread.get(self.steps, 1):
                if self._ended and self.steps >= self._batches_begun:
                    return False
                self._changed.wait(self._left())
            if self._left() <= 0:
                return False
            del self._unread[self.steps]
            self.steps += 1
            self._changed.notify_all()
            return True

    def _left(self) -> float:
        return self._deadline - time.monotonic()
