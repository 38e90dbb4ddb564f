"""Parquet files of tables without the rows that the table says are deleted, re-written in bounded memory.

What is written has the schema of the file that it is made of, field ids and metadata included, and depends on nothing
but those rows and the release of pyarrow.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prefect_stagegate.errors import ObjectChanged, SourceError
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources.base import Source
from prefect_stagegate.sources.spooled_file import WRITER, Sink, Slice, Spool
from prefect_stagegate.sources.terms import Terms

WRITTEN_BY = f"pyarrow-{pa.__version__}-1"
"""What the bytes depend on beside the files. The last number is that of the way of writing here."""
GROUP_BYTES = 16 << 20
"""A row group of what is written, in memory."""
MOST_ROWS = 8192
"""Rows that are read at a time."""
READER: Mapping[str, Any] = {"buffer_size": 1 << 20, "pre_buffer": False}
"""A MiB of a column is read at a time, and nothing ahead: by default pyarrow reads whole row groups."""


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
            filled = end - self._position
            self._source.read_into(self._listed, self._position, view[:filled])
        self._position += filled
        return filled

    def confirm(self) -> None:
        """Raise when the object changed while it was read, and no read could tell."""
        self._source.confirm(self._listed)


Make = Callable[[Sink], Iterator[None]]
"""Writes a file into the sink, and gives whoever asked for it a say between two of its parts."""
REWRITTEN = "rewritten"
"""The kind of the pins of such files."""


class Task(NamedTuple):
    """A file to be made."""

    pin: Pin
    make: Make


def task(data: SourceObject, told: bytes, make: Make) -> Task:
    """How a data file is re-written.

    Args:
        data: The file as it is.
        told: What says which rows of it are deleted.
        make: Writes it without them.
    """
    digest = hashlib.sha256(told).hexdigest()[:32]
    return Task(Pin(REWRITTEN, f"{data.pin.value}-{digest}-{WRITTEN_BY}", "strong"), make)


class Rewritten:
    """The re-written files of a table, each made once, and read any number of times by any number of threads.

    Args:
        terms: Where they are kept, and what is remembered of them.
        url: The table's, for errors.
        identity: The source's.
    """

    def __init__(self, terms: Terms, *, url: str, identity: str) -> None:
        self._terms, self._url, self._identity = terms, url, identity
        self._lock, self._planning = threading.Lock(), threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._planned: set[str] = set()
        self._spool: Spool | None = None
        self._made: dict[str, Slice] = {}
        self._closed = False

    def sized(self, data: SourceObject, made: Task) -> SourceObject:
        """The object that is made of a data file. It is made now, unless it is remembered how large it is."""
        self._tasks[made.pin.value] = made
        found = replace(data, pin=made.pin)
        size = self._terms.recall(self._identity, data.key, made.pin)
        return replace(found, size=self._slice(found, made).size if size is None else size)

    def read_into(
        self, listed: SourceObject, start: int, buffer: memoryview, plan: Callable[[], Iterable[Task]]
    ) -> None:
        """Fill a buffer with a range of an object.

        Args:
            listed: The object, which another process may have listed.
            start: Where it begins.
            buffer: As long as the range.
            plan: Tells all that is made of the state that the object was listed in.

        Raises:
            ObjectChanged: It is not among that, or has another size now.
        """
        with self._planning:
            if listed.pin.value not in self._tasks and listed.state not in self._planned:
                self._tasks |= {one.pin.value: one for one in plan()}
                self._planned.add(listed.state)
        made = self._tasks.get(listed.pin.value)
        one = self._slice(listed, made) if made else None
        if one is None or one.size != listed.size:
            raise ObjectChanged(
                "The table no longer has the file with these rows deleted, or another release of pyarrow writes it",
                hint="The state of the table that it was listed in may be gone: stage the table as it is now.",
                source=self._url,
                object=listed.key,
            )
        spool = self._spool
        if spool is None:
            raise self._is_closed(listed)
        try:
            spool.read_into(one, start, buffer)
        except (OSError, ValueError) as error:  # the latter when it was closed
            raise SourceError(f"The spool can't be read: {error}", source=self._url, object=listed.key) from error

    def close(self) -> None:
        """Free the bytes; what is being made ends at its next row group."""
        self._closed = True
        with self._lock:
            if self._spool:
                self._spool.close()
                self._spool = None

    def _slice(self, one: SourceObject, made: Task) -> Slice:
        name = made.pin.value
        if name not in self._made:
            with self._lock:
                if self._closed:
                    raise self._is_closed(one)
                if name not in self._made:
                    self._made[name] = self._make(one, made)
        return self._made[name]

    def _make(self, one: SourceObject, made: Task) -> Slice:
        try:
            self._spool = self._spool or Spool(self._terms.scratch)
            with self._spool.object() as sink:
                for _ in made.make(sink):
                    if self._closed:
                        raise self._is_closed(one)
        except (OSError, ValueError, pa.ArrowException) as error:
            if not (isinstance(error, OSError) and error.errno):  # pyarrow's own, of a broken file for one, have none
                told = f"The file can't be re-written: {error}"
                raise SourceError(told, source=self._url, object=one.key) from error
            where = self._spool.folder if self._spool else self._terms.scratch
            hint = "Free some of its volume, or take fewer files by `include:`."
            told = f"What is re-written of the file can't be kept in {where}: {error}"
            raise SourceError(told, hint=hint, source=self._url, object=one.key) from error
        return sink.slice()

    def _is_closed(self, one: SourceObject) -> SourceError:
        return SourceError("The source is closed", source=self._url, object=one.key)


def marked_paths(deletes: Pinned) -> frozenset[str]:
    """The data files of which a file of positions marks rows."""
    with pq.ParquetFile(deletes, **READER) as file:
        found: set[str] = set()
        for batch in file.iter_batches(MOST_ROWS, columns=["file_path"], use_threads=False):
            found.update(pc.unique(batch["file_path"]).to_pylist())
        return frozenset(found)


def unmarked(deletes: Sequence[Pinned], path: str, rows: int) -> bytearray:
    """A byte for each row of a file: 0 where a file of positions marks it.

    Args:
        deletes: Files with the columns `file_path` and `pos`.
        path: The file's name in them.
        rows: How many it has.
    """
    kept = bytearray(b"\x01") * rows
    for one in deletes:
        for position in chain.from_iterable(_positions(one, path)):
            if position < rows:
                kept[position] = 0
        one.confirm()
    return kept


def rewrite(data: Pinned, kept: Callable[[int], bytearray], sink: Sink) -> Iterator[None]:
    """Write a Parquet file without some of its rows. Memory holds one row group, and a byte for each row of the file.

    Args:
        data: The file.
        kept: Gives a byte for each of so many rows: 0 where the row is left out.
        sink: What is written to.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: The file isn't what it should be.
    """
    with pq.ParquetFile(data, coerce_int96_timestamp_unit="us", **READER) as file:
        rows = kept(file.metadata.num_rows)
        yield
        options = {**WRITER, "store_decimal_as_integer": True}  # as Iceberg has it, and Spark writes it
        with pq.ParquetWriter(sink, file.schema_arrow, **options) as writer:
            for group in _groups(_kept(file, rows)):
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                yield
            told = file.metadata.metadata or {}
            if notes := {name: note for name, note in told.items() if name != b"ARROW:schema"}:
                writer.add_key_value_metadata(notes)
    data.confirm()


def _positions(deletes: Pinned, path: str) -> Iterator[list[int]]:
    with pq.ParquetFile(deletes, **READER) as file:
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
