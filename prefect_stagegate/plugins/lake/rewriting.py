"""Re-writes a table's Parquet files without their deleted rows, in bounded memory.

A re-written file has the schema, the field ids and the metadata of the original. Its bytes depend only on the kept rows
and on the release of pyarrow.
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
from prefect_stagegate.sources.adapter import Source
from prefect_stagegate.sources.spooled_file import WRITER, Sink, Spool, SpooledRange
from prefect_stagegate.sources.terms import Terms

WRITTEN_BY = f"pyarrow-{pa.__version__}-1"
"""What else the bytes depend on. Raise the last number when this module writes them differently."""
GROUP_BYTES = 16 << 20
"""Bytes in memory at which a row group of a re-written file is complete."""
MOST_ROWS = 8192
"""Most rows that are read at a time."""
READER: Mapping[str, Any] = {"buffer_size": 1 << 20, "pre_buffer": False}
"""Read a MiB of a column at a time, and nothing ahead. By default pyarrow reads whole row groups."""


class PinnedFile(io.RawIOBase):
    """An object of a source as a Python file. Every read is of the state in which the object was listed."""

    def __init__(self, source: Source, listed: SourceObject) -> None:
        super().__init__()
        self._source, self._listed, self._position = source, listed, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._listed.size}[whence]
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or its beginning where the file ends before. Returns the number of bytes."""
        view, filled = memoryview(buffer).cast("B"), 0
        end = min(self._position + len(view), self._listed.size)
        if end > self._position:
            filled = end - self._position
            self._source.read_into(self._listed, self._position, view[:filled])
        self._position += filled
        return filled

    def confirm(self) -> None:
        """Raise when the object changed while it was read: not every source notices that in each read."""
        self._source.confirm(self._listed)


Make = Callable[[Sink], Iterator[None]]
"""Writes a file into the sink. Yields between two row groups, so that the caller can stop it."""
REWRITTEN = "rewritten"
"""The kind of the pins of re-written files."""


class Task(NamedTuple):
    """A file to be re-written: the pin of the result, and the function that writes it."""

    pin: Pin
    make: Make


def plan_rewrite(data: SourceObject, deletes: bytes, make: Make) -> Task:
    """The task that re-writes a data file.

    `deletes` are bytes that identify which of its rows are deleted; `make` writes it without them.
    """
    digest = hashlib.sha256(deletes).hexdigest()[:32]
    return Task(Pin(REWRITTEN, f"{data.pin.value}-{digest}-{WRITTEN_BY}", "strong"), make)


class RewrittenFiles:
    """The re-written files of a table. Each is written once, and read any number of times by any number of threads."""

    def __init__(self, terms: Terms, *, url: str, identity: str) -> None:
        self._terms, self._url, self._identity = terms, url, identity
        self._lock, self._planning = threading.Lock(), threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._planned: set[str] = set()
        self._spool: Spool | None = None
        self._slices: dict[str, SpooledRange] = {}
        self._closed = False

    def sized(self, data: SourceObject, task: Task) -> SourceObject:
        """The object of a re-written file. The file is re-written now, unless its size is known."""
        self._tasks[task.pin.value] = task
        rewritten = replace(data, pin=task.pin)
        size = self._terms.recall(self._identity, data.key, task.pin)
        return replace(rewritten, size=self._slice(rewritten, task).size if size is None else size)

    def read_into(
        self, listed: SourceObject, start: int, buffer: memoryview, plan: Callable[[], Iterable[Task]]
    ) -> None:
        """Fill a buffer with a range of an object.

        Another process may have listed the object: `plan` plans all tasks of the table's state at that time.

        Raises:
            ObjectChanged: None of the tasks makes the object, or the file has another size now.
        """
        with self._planning:
            # Another process listed the object: plan its state of the table once.
            if listed.pin.value not in self._tasks and listed.state not in self._planned:
                self._tasks |= {task.pin.value: task for task in plan()}
                self._planned.add(listed.state)
        planned = self._tasks.get(listed.pin.value)
        place = self._slice(listed, planned) if planned else None
        if place is None or place.size != listed.size:
            raise ObjectChanged(
                "The file can't be re-written as it was listed: its deleted rows or pyarrow's release have changed",
                hint="Stage the table again, as it is now.",
                source=self._url,
                object=listed.key,
            )
        # In a variable, because `close` may take it away at any time.
        spool = self._spool
        if spool is None:
            raise self._is_closed(listed)
        try:
            spool.read_into(place, start, buffer)
        except (OSError, ValueError) as error:  # ValueError: the spool was closed meanwhile
            raise SourceError(f"The spool can't be read: {error}", source=self._url, object=listed.key) from error

    def close(self) -> None:
        """Free the spool. A file that is being re-written ends at its next row group."""
        self._closed = True
        with self._lock:
            if self._spool:
                self._spool.close()
                self._spool = None

    def _slice(self, listed: SourceObject, task: Task) -> SpooledRange:
        """A file's place in the spool. The file is re-written at first use."""
        pin = task.pin.value
        if pin not in self._slices:
            with self._lock:
                if self._closed:
                    raise self._is_closed(listed)
                if pin not in self._slices:  # another thread may have written it meanwhile
                    self._slices[pin] = self._write(listed, task)
        return self._slices[pin]

    def _write(self, listed: SourceObject, task: Task) -> SpooledRange:
        try:
            self._spool = self._spool or Spool(self._terms.scratch)
            with self._spool.object() as sink:
                for _ in task.make(sink):
                    if self._closed:
                        raise self._is_closed(listed)
        except (OSError, ValueError, pa.ArrowException) as error:
            # An error with a number came from the operating system, so from the spool: pyarrow's have none.
            if not (isinstance(error, OSError) and error.errno):
                message = f"The file can't be re-written: {error}"
                raise SourceError(message, source=self._url, object=listed.key) from error
            folder = self._spool.folder if self._spool else self._terms.scratch
            hint = "Free space on its volume, or take fewer files by `include:`."
            message = f"The re-written file can't be stored in {folder}: {error}"
            raise SourceError(message, hint=hint, source=self._url, object=listed.key) from error
        return sink.slice()

    def _is_closed(self, listed: SourceObject) -> SourceError:
        return SourceError("The source is closed", source=self._url, object=listed.key)


def marked_paths(deletes: PinnedFile) -> frozenset[str]:
    """The paths of the data files whose rows a position delete file marks."""
    with pq.ParquetFile(deletes, **READER) as file:
        paths: set[str] = set()
        for batch in file.iter_batches(MOST_ROWS, columns=["file_path"], use_threads=False):
            paths.update(pc.unique(batch["file_path"]).to_pylist())
        return frozenset(paths)


def unmarked(deletes: Sequence[PinnedFile], path: str, rows: int) -> bytearray:
    """A byte for each row of a data file: 0 where a position delete file marks it, else 1.

    `deletes` are files with the columns `file_path` and `pos`; `path` is the data file's path in them.
    """
    kept = bytearray(b"\x01") * rows
    for file in deletes:
        for position in chain.from_iterable(_positions(file, path)):
            if position < rows:
                kept[position] = 0
        file.confirm()
    return kept


def rewrite(data: PinnedFile, kept: Callable[[int], bytearray], sink: Sink) -> Iterator[None]:
    """Write a Parquet file without some of its rows. Memory holds one row group, and a byte for each row of the file.

    `kept` returns a byte for each row, given their number: 0 where the row is left out.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: The file is broken.
    """
    # Spark's old timestamps as microseconds: as nanoseconds they would end in the year 2262.
    with pq.ParquetFile(data, coerce_int96_timestamp_unit="us", **READER) as file:
        rows = kept(file.metadata.num_rows)
        yield  # reading the delete files may have taken long: let the caller stop here
        options = {**WRITER, "store_decimal_as_integer": True}  # as Iceberg specifies and Spark writes
        with pq.ParquetWriter(sink, file.schema_arrow, **options) as writer:
            for group in _groups(_kept(file, rows)):
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                yield
            # All but pyarrow's own note on the schema, which changes with its releases.
            metadata = file.metadata.metadata or {}
            if notes := {name: note for name, note in metadata.items() if name != b"ARROW:schema"}:
                writer.add_key_value_metadata(notes)
    data.confirm()  # only now is it sure that all rows were of one state


def _positions(deletes: PinnedFile, path: str) -> Iterator[list[int]]:
    with pq.ParquetFile(deletes, **READER) as file:
        for batch in file.iter_batches(MOST_ROWS, columns=["file_path", "pos"], use_threads=False):
            yield batch.filter(pc.equal(batch["file_path"], path))["pos"].to_pylist()


def _kept(file: pq.ParquetFile, kept: bytearray) -> Iterator[pa.RecordBatch]:
    """The kept rows, in their order. Wide rows are read fewer at a time, so that memory stays bounded."""
    start, metadata = 0, file.metadata
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    rows = min(MOST_ROWS, max(1, GROUP_BYTES * metadata.num_rows // max(1, size)))
    # In this thread: others would hold further batches in memory.
    for batch in file.iter_batches(rows, use_threads=False):
        mask = pa.Array.from_buffers(pa.uint8(), len(batch), [None, pa.py_buffer(kept[start : start + len(batch)])])
        start += len(batch)
        yield batch.filter(mask.cast(pa.bool_()))


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches, joined until they are large enough for a row group."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(part.nbytes for part in waiting) >= GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting and (table := pa.Table.from_batches(waiting)).num_rows:
        yield table
