"""Where rendered objects wait to be read: one file without a name, that goes with its process however that ends."""

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
"""How Parquet is written into it. Fixed: the same rows in the same order are the same bytes, of one release of pyarrow,
which signs its files."""


class Slice(NamedTuple):
    """One object's place in the spool."""

    start: int
    size: int
    sha256: str


class Sink:
    """What a writer of one object is given: a file that only grows, hashed as it does."""

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
        while written < len(view):
            written += os.pwrite(self._descriptor, view[written:], self._position + written)
        self._position += written
        return written

    def flush(self) -> None:
        """Do nothing: nobody needs the spool after its process."""

    def slice(self) -> Slice:
        """The object as it was written."""
        return Slice(self._start, self._position - self._start, self._hash.hexdigest())


class Spool:
    """A file of objects, one behind the other. One thread writes at a time; any number read.

    Args:
        folder: Whose volume holds it; None for the system's folder of temporary files.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = folder or tempfile.gettempdir()
        self._file = tempfile.TemporaryFile(dir=folder, prefix="spool-", buffering=0)  # noqa: SIM115 - close() is ours
        weakref.finalize(self, self._file.close)  # where nobody closes the source
        self._end = 0

    @contextmanager
    def object(self) -> Iterator[Sink]:
        """Write one object; one that fails leaves nothing."""
        sink = Sink(self._file.fileno(), self._end)
        try:
            yield sink
        except BaseException:
            os.ftruncate(self._file.fileno(), self._end)
            raise
        self._end += sink.slice().size

    def read_into(self, one: Slice, start: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes of an object from `start` on.

        Raises:
            OSError: The spool ends early, or can't be read.
        """
        while buffer:
            count = os.preadv(self._file.fileno(), [buffer], one.start + start)
            if not count:
                raise OSError("the spool ends early")
            buffer, start = buffer[count:], start + count

    def close(self) -> None:
        """Free the bytes."""
        self._file.close()
