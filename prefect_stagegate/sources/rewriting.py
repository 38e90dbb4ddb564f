"""Parquet files without the rows that files of positions mark as deleted, re-written in bounded memory.

What is written has the schema of the file that it is made of, field ids and metadata included, and depends on nothing
but the two and on the release of pyarrow.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prefect_stagegate.errors import SourceError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.base import Source
from prefect_stagegate.sources.spool import WRITER, Sink, Slice, Spool

if TYPE_CHECKING:
    from typing_extensions import Buffer

WRITTEN_BY = f"pyarrow-{pa.__version__}-1"
"""What the bytes depend on beside the files. The last number is that of the way of writing here."""
GROUP_BYTES = 16 << 20
"""A row group of what is written, in memory."""
MOST_ROWS = 8192
"""Rows that are read at a time."""
BUFFERED = 1 << 20
"""Bytes that are read of a column at a time."""


class Pinned(io.RawIOBase):
    """An object of a source as a file: every read is of the state in which it was listed."""

    def __init__(self, source: Source, listed: SourceObject) -> None:
        super().__init__()
        self._source, self._listed, self._position = source, listed, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._listed.size}[whence]
        return self._position

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or as much of it as the file has bytes."""
        view, filled = memoryview(buffer).cast("B"), 0
        end = min(self._position + len(view), self._listed.size)
        if end > self._position:
            for chunk in self._source.read(self._listed, self._position, end):
                part = memoryview(chunk).cast("B")
                view[filled : filled + len(part)] = part
                filled += len(part)
        self._position += filled
        return filled

    def confirm(self) -> None:
        """Raise when the object changed while it was read, and no read could tell."""
        self._source.confirm(self._listed)


Make = Callable[[Sink], Iterator[None]]
"""Writes a file into the sink, and gives whoever asked for it a say between two of its parts."""


class Rewritten:
    """Files that are made once, and read any number of times, by any number of threads.

    Args:
        scratch: The folder whose volume holds them; None for the system's.
        url: For errors.
    """

    def __init__(self, scratch: str | None, *, url: str) -> None:
        self._scratch, self._url = scratch, url
        self._lock = threading.Lock()
        self._spool: Spool | None = None
        self._made: dict[str, Slice] = {}
        self._closed = False

    def size(self, name: str, key: str, make: Make) -> int:
        """Bytes of what `make` writes, which is asked once for each name."""
        return self._slice(name, key, make).size

    def read(self, name: str, key: str, make: Make, start: int, end: int) -> Iterator[Buffer]:
        """A range of it."""
        one = self._slice(name, key, make)
        spool = self._spool
        if spool is None:
            raise self._is_closed(key)
        try:
            yield from spool.read(one, start, end)
        except (OSError, ValueError) as error:  # the latter when it was closed
            raise SourceError(f"The spool can't be read: {error}", source=self._url, object=key) from error

    def close(self) -> None:
        """Free the bytes; what is being made ends at its next row group."""
        self._closed = True
        with self._lock:
            if self._spool:
                self._spool.close()
                self._spool = None

    def _slice(self, name: str, key: str, make: Make) -> Slice:
        if name not in self._made:
            with self._lock:
                if self._closed:
                    raise self._is_closed(key)
                if name not in self._made:
                    self._made[name] = self._make(key, make)
        return self._made[name]

    def _make(self, key: str, make: Make) -> Slice:
        try:
            self._spool = self._spool or Spool(self._scratch)
            with self._spool.object() as sink:
                for _ in make(sink):
                    if self._closed:
                        raise self._is_closed(key)
        except (OSError, ValueError, pa.ArrowException) as error:
            if not (isinstance(error, OSError) and error.errno):  # pyarrow's own, of a broken file for one, have none
                raise SourceError(f"The file can't be re-written: {error}", source=self._url, object=key) from error
            where = self._spool.folder if self._spool else self._scratch
            hint = "Free some of its volume, or take fewer files by `include:`."
            told = f"What is re-written of the file can't be kept in {where}: {error}"
            raise SourceError(told, hint=hint, source=self._url, object=key) from error
        return sink.slice()

    def _is_closed(self, key: str) -> SourceError:
        return SourceError("The source is closed", source=self._url, object=key)


def marked_paths(deletes: Pinned) -> frozenset[str]:
    """The data files of which a file of positions marks rows."""
    with pq.ParquetFile(deletes, buffer_size=BUFFERED) as file:
        found: set[str] = set()
        for batch in file.iter_batches(MOST_ROWS, columns=["file_path"], use_threads=False):
            found.update(pc.unique(batch["file_path"]).to_pylist())
        return frozenset(found)


def rewrite(data: Pinned, deletes: Sequence[Pinned], path: str, sink: Sink) -> Iterator[None]:
    """Write a Parquet file without the rows that the files of positions mark in it.

    Memory holds one row group of what is written, and a byte for each row of the file.

    Args:
        data: The file.
        deletes: Files with the columns `file_path` and `pos`.
        path: Its name in them.
        sink: What is written to.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: One of them isn't what it should be.
    """
    with pq.ParquetFile(data, buffer_size=BUFFERED, coerce_int96_timestamp_unit="us") as file:
        kept = bytearray(b"\x01") * file.metadata.num_rows
        for one in deletes:
            for positions in _positions(one, path):
                for position in positions:
                    if position < len(kept):
                        kept[position] = 0
            yield
        options = {**WRITER, "store_decimal_as_integer": True}  # as Iceberg has it
        with pq.ParquetWriter(sink, file.schema_arrow, **options) as writer:
            for group in _groups(_kept(file, kept)):
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                yield
            told = file.metadata.metadata or {}
            if notes := {name: note for name, note in told.items() if name != b"ARROW:schema"}:
                writer.add_key_value_metadata(notes)
    for one in (data, *deletes):
        one.confirm()


def _positions(deletes: Pinned, path: str) -> Iterator[list[int]]:
    with pq.ParquetFile(deletes, buffer_size=BUFFERED) as file:
        for batch in file.iter_batches(MOST_ROWS, columns=["file_path", "pos"], use_threads=False):
            yield batch.filter(pc.equal(batch["file_path"], path))["pos"].to_pylist()


def _kept(file: pq.ParquetFile, kept: bytearray) -> Iterator[pa.RecordBatch]:
    """The rows to be kept, in their order. Rows that are read at a time are fewer where they are wide."""
    start, told = 0, file.metadata
    size = sum(told.row_group(number).total_byte_size for number in range(told.num_row_groups))
    rows = min(MOST_ROWS, max(1, GROUP_BYTES * told.num_rows // max(1, size)))
    for batch in file.iter_batches(rows, use_threads=False):
        mask = pa.Array.from_buffers(pa.uint8(), len(batch), [None, pa.py_buffer(kept[start : start + len(batch)])])
        start += len(batch)
        yield batch.filter(mask.cast(pa.bool_()))


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches, put together until they are large enough for a row group."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.nbytes for one in waiting) >= GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting and (table := pa.Table.from_batches(waiting)).num_rows:
        yield table
