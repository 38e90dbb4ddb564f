"""Large objects: parts arrive in any order, are written at their place in the file, and are hashed in order.

A part that arrives before its turn waits in its buffer. When too many buffers wait, the buffer is freed and the part
is read back from the file when its turn comes, as are the parts of an interrupted run.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from dataclasses import dataclass

from blake3 import blake3

from prefect_stagegate.cache.ingest import PART, UPTO, Claim, Journal, Note
from prefect_stagegate.cache.space import BLOCK, room
from prefect_stagegate.transport.transfer.buffers import DirectFile
from prefect_stagegate.transport.transfer.checks import Hasher, Offers
from prefect_stagegate.transport.transfer.context import Done, TransferContext, writing
from prefect_stagegate.transport.transfer.job import FetchJob

SCRATCH = 1 << 20
"""Bytes that are read back at a time."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part that is being read, with its buffer."""

    download: MultipartDownload
    index: int
    buffer: mmap.mmap


class MultipartDownload:
    """One large object that is being fetched. Safe to use from many threads.

    Each `next_part` must be followed by one `store` or `give_up`.

    Its claim is kept when the object is abandoned, and belongs to the result at the end. `offers` are checksums of the
    whole object, where the listing had none.

    Raises:
        CacheError, NoSpace: The volume can't take the object.
    """

    def __init__(self, context: TransferContext, job: FetchJob, claim: Claim, offers: Offers = ()) -> None:
        assert job.listed is not None  # noqa: S101 - looked up
        self.job = job
        self._context, self._claim, self._buffers = context, claim, context.buffers
        self._size, self._length = job.listed.size, context.limits.part
        self._count = -(-self._size // self._length)
        self._started = time.time()
        # Blocks that an interrupted run wrote are allocated already.
        context.space.take(max(0, room(self._size) - os.fstat(claim.file).st_blocks * BLOCK))
        with writing(claim.path):
            self._file = DirectFile(claim.file, self._size)
            self._journal = Journal(claim, self._size, self._length, job.may_go_on)
        self._hasher = Hasher(job.listed.checksums or offers, self._size)
        self._next = 0
        self._notes = dict(self._journal.parts)
        self._resumed = frozenset(self._notes)
        self._ready: dict[int, mmap.mmap | None] = dict.fromkeys(self._notes)
        """Parts in the file that are not hashed yet; None where their bytes must be read back."""
        # Reversed, because parts are taken from the end.
        self._todo = [index for index in reversed(range(self._count)) if index not in self._notes]
        self._lock = threading.Lock()
        self.users = 1
        """Threads and reads that use the object; the thread that opens it is the first."""
        self._hashing = False
        self._abandoned = False
        self._discard = False
        self._closed = False
        self._fetched = 0

    def next_part(self) -> Part | None:
        """The next part to read; None when there is none, or no buffer for it."""
        with self._lock:
            if not self._todo or (buffer := self._buffers.take()) is None:
                return None
            self.users += 1
            return Part(self, self._todo.pop(), buffer)

    def begin(self) -> Done | None:
        """Hash what an interrupted run left; returns the object when that was all. Call it once, after opening."""
        try:
            return self._hash_ready()
        finally:
            self._leave()

    def bounds(self, part: Part) -> tuple[int, int]:
        """The first byte of a part, and the byte after its last one."""
        start = part.index * self._length
        return start, min(start + self._length, self._size)

    def store(self, part: Part) -> Done | None:
        """Write a part that was read, and hash the parts whose turn it is; returns the object after the last part.

        Raises:
            SourceError: The object's bytes are wrong.
            CacheError: The cache can't be written.
        """
        try:
            self._write(part)
            return self._hash_ready()
        finally:
            self._leave()

    def give_up(self, part: Part) -> None:
        """Free the buffer of a part that could not be read."""
        self._buffers.put(part.buffer)
        self._leave()

    def abandon(self, *, discard: bool) -> bool:
        """Start no more parts; True for the first caller.

        Args:
            discard: Whether to drop what was written because it is wrong; else the next run continues with it.
        """
        with self._lock:
            first, self._abandoned = not self._abandoned, True
            self._discard |= discard
            self._todo.clear()
            # Counted as a user itself, so that `_leave` closes the object when nobody else uses it.
            self.users += 1
        self._leave()
        return first

    def _leave(self) -> None:
        """Count one user less; the last one closes an abandoned object."""
        with self._lock:
            self.users -= 1
            if self.users or not self._abandoned or self._closed:
                return
            self._closed = True
            # Taken under the lock, so that no other thread hashes what is freed below.
            waiting, self._ready = self._ready, {}
        for buffer in filter(None, waiting.values()):
            self._buffers.put_held(buffer)
        self._journal.close()
        if self._discard:
            self._claim.drop()
        else:
            self._claim.keep()

    def _write(self, part: Part) -> None:
        """Write a part to the file. Its buffer then waits to be hashed, or is freed at once."""
        held = False
        try:
            start, end = self.bounds(part)
            mark = time.perf_counter()
            with writing(self._claim.path):
                self._file.write(part.buffer, end - start, start)
            self._context.stats.lap("disk", mark)
            with self._lock:
                held = not self._abandoned and self._buffers.hold(urgent=part.index == self._next)
                self._fetched += end - start
            # The buffer is freed, so the journal gets the part's own digest to check what is read back.
            if not held:
                self._note(part.index, Note(PART, blake3(memoryview(part.buffer)[: end - start]).hexdigest()))
            with self._lock:
                # After the note, by which a part is checked when it is read back.
                self._ready[part.index] = part.buffer if held else None
        finally:
            if not held:
                self._buffers.put(part.buffer)

    def _note(self, index: int, note: Note) -> None:
        self._notes[index] = note
        # An object of one part has nothing to resume from.
        if self._count > 1:
            with writing(self._claim.path):
                self._journal.record(index, note)

    def _hash_ready(self) -> Done | None:
        """Hash the parts whose turn it is, unless another thread does; returns the object when all are hashed."""
        while True:
            with self._lock:
                if self._hashing or self._abandoned or self._next not in self._ready:
                    return None
                self._hashing = True
                buffer = self._ready.pop(self._next)
            try:
                self._hash(self._next, buffer)
            finally:
                self._hashing = False
            # Only one thread gets here: the one that hashed the last part.
            if self._next == self._count:
                return self._finish()

    def _hash(self, index: int, buffer: mmap.mmap | None) -> None:
        length = min(self._length, self._size - index * self._length)
        mark = time.perf_counter()
        if buffer is None:
            if not self._read_back(index, length):
                # The part on the disk is damaged: fetch it again.
                with self._lock:
                    self._todo.append(index)
                return
        else:
            try:
                self._hasher.update(memoryview(buffer)[:length])
            finally:
                self._buffers.put_held(buffer)
            # The digest of all bytes so far: by it the next run checks this part and all before it.
            self._note(index, Note(UPTO, self._hasher.hexdigest()))
        self._context.stats.lap("hashing", mark)
        self._next += 1

    def _read_back(self, index: int, length: int) -> bool:
        """Hash a part from the file; False, without any effect, when its bytes are not those that were recorded."""
        # By a copy, which is dropped when the bytes turn out wrong.
        hasher, alone = self._hasher.copy(), blake3()
        start, position = index * self._length, 0
        # Aligned, because the file may be open for direct reads.
        scratch = mmap.mmap(-1, SCRATCH)
        with writing(self._claim.path):
            while position < length:
                count = self._file.read(scratch, min(SCRATCH, length - position), start + position)
                # The file is shorter than its journal says.
                if not count:
                    return False
                self._context.stop.check()
                hasher.update(memoryview(scratch)[:count])
                alone.update(memoryview(scratch)[:count])
                position += count
        note = self._notes[index]
        if note.digest != (hasher.hexdigest() if note.kind == UPTO else alone.hexdigest()):
            return False
        self._hasher = hasher
        if index in self._resumed:
            self._context.stats.resume(length)
            self._context.progress.moved(length)
        return True

    def _finish(self) -> Done:
        with writing(self._claim.path):
            self._file.finish()
        facts = (self.job, self._claim, self._hasher)
        done = self._context.finish(*facts, fetched=self._fetched, started=self._started, sync=True)
        with self._lock:
            self._closed = True  # from here on the claim belongs to the result
        self._journal.close()
        return done
