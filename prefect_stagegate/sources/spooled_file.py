"""A temporary file of rendered objects. It has no name, so it goes with its process however that ends."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

WRITER: Mapping[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "data_page_version": "1.0",
    "store_schema": False,  # pyarrow's own note on the schema changes with its releases
    "use_dictionary": True,
    "version": "2.6",
    "write_statistics": True,
}
"""Options of the Parquet writer. Fixed, so that the same rows in the same order give the same bytes, as long as the
release of pyarrow, whose name stands in the file, is the same."""


class SpooledRange(NamedTuple):
    """One object's place in the spool."""

    start: int
    size: int
    sha256: str


class Sink:
    """A file to write one object to: it only grows, and is hashed while it does."""

    closed = False

    def __init__(self, descriptor: int, start: int) -> None:
        self._descriptor, self._start = descriptor, start
        self._position = start
        self._hash = hashlib.sha256()

    def write(self, data: Buffer) -> int:
        """Append."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        written = 0
        # A write may be short.
        while written < len(view):
            written += os.pwrite(self._descriptor, view[written:], self._position + written)
        self._position += written
        return written

    def flush(self) -> None:
        """Do nothing: the spool need not survive its process."""

    def slice(self) -> SpooledRange:
        """Place, size and digest of what was written."""
        return SpooledRange(self._start, self._position - self._start, self._hash.hexdigest())


class Spool:
    """A file of objects, one after the other. One thread writes at a time; any number read.

    Args:
        folder: The folder whose volume holds the file; None for the system's folder of temporary files.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = folder or tempfile.gettempdir()
        self._file = tempfile.TemporaryFile(dir=folder, prefix="spool-", buffering=0)  # noqa: SIM115 - close() is ours
        weakref.finalize(self, self._file.close)  # where nobody closes the source
        self._end = 0

    @contextmanager
    def object(self) -> Iterator[Sink]:
        """Write one object. A block that fails leaves nothing of it."""
        sink = Sink(self._file.fileno(), self._end)
        try:
            yield sink
        except BaseException:
            # Objects lie one after the other without gaps: the next one begins here again.
            os.ftruncate(self._file.fileno(), self._end)
            raise
        self._end += sink.slice().size

    def read_into(self, place: SpooledRange, start: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes of an object from `start` on.

        Raises:
            OSError: The spool ends early, or can't be read.
        """
        while buffer:
            count = os.preadv(self._file.fileno(), [buffer], place.start + start)
            if not count:
                raise OSError("the spool ends early")
            buffer, start = buffer[count:], start + count

    def close(self) -> None:
        """Free the bytes."""
        self._file.close()
