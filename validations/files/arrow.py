"""Read Arrow's files and streams (Feather, IPC), a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

MAGIC = b"ARROW1"
"""The first bytes of a file; a stream has none."""


def schema_of(path: Path) -> pa.Schema:
    """The columns of one file or stream.

    Raises:
        pyarrow.ArrowException, OSError: It can't be read.
    """
    with _opened(path) as reader:
        return reader.schema


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of one file or stream; memory holds one batch, as its writer cut it.

    Raises:
        pyarrow.ArrowException, OSError: It can't be read to its end, or a value lies outside of its buffers.
    """
    with _opened(path) as reader:
        is_file = isinstance(reader, pa.RecordBatchFileReader)
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
            # Offsets come from outside: one that points beyond its buffer would read this process' other memory.
            batch.validate(full=True)
            yield batch


def _opened(path: Path) -> Any:
    # Not mapped into memory: a file that shrinks meanwhile would kill the process.
    source = pa.OSFile(str(path))
    is_file = source.read(len(MAGIC)) == MAGIC
    source.seek(0)
    return pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)


class ArrowFiles:
    """Files with the same columns as one stream, which DuckDB opens anew for each query."""

    def __init__(
        self,
        paths: Sequence[Path],
        schema: pa.Schema,
        filename: str,
        read: Callable[[Path], Iterator[pa.RecordBatch]] = batches,
    ) -> None:
        """Read `paths`, whose columns are `schema`; `filename` names the column to add, which holds each row's file."""
        self._paths, self._read = paths, read
        self._schema = schema.append(pa.field(filename, pa.string()))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows, by Arrow's PyCapsule protocol."""
        return pa.RecordBatchReader.from_batches(self._schema, self._rows()).__arrow_c_stream__(requested_schema)

    def _rows(self) -> Iterator[pa.RecordBatch]:
        for path in self._paths:
            for batch in self._read(path):
                file = pa.repeat(pa.scalar(str(path)), batch.num_rows)
                yield pa.RecordBatch.from_arrays([*batch.columns, file], schema=self._schema)


def by_columns(paths: Sequence[Path]) -> list[tuple[list[Path], pa.Schema]]:
    """The files in groups of equal columns, in the order of their first files."""
    groups: list[tuple[list[Path], pa.Schema]] = []
    for path in paths:
        schema = schema_of(path).remove_metadata()
        group = next((members for members, columns in groups if columns.equals(schema)), None)
        if group is None:
            groups.append(([path], schema))
        else:
            group.append(path)
    return groups
