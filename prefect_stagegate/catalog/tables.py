"""Manifests and origins as Parquet: written and read a batch at a time, so that only compressed rows stay in memory."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan, nan
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from prefect_stagegate.catalog.columns import to_column, to_values
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import Entry, Origin, Pin

UNKNOWN = nan
"""Stands for a time of change that a source doesn't tell."""
BATCH = 16_384
"""Rows that are in memory as Python objects at a time."""

T = TypeVar("T")


@dataclass(frozen=True)
class Table(Generic[T]):
    """How one kind of row is laid out."""

    schema: pa.Schema
    to_row: Callable[[T], tuple[Any, ...]]
    """One value for each field of the schema."""
    from_row: Callable[..., T]
    """Takes the values in the same order."""

    def write(self, rows: Iterable[T], metadata: dict[str, str]) -> bytes:
        """The rows as one Parquet file, with `metadata` in its footer."""
        sink = io.BytesIO()
        source = iter(rows)
        with pq.ParquetWriter(sink, self.schema.with_metadata(metadata), compression="zstd") as writer:
            while batch := list(islice(source, BATCH)):
                values = zip(*map(self.to_row, batch), strict=True)
                columns = [to_column(kind, column) for kind, column in zip(self.schema.types, values, strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        return sink.getvalue()

    def read(self, data: bytes, key: str) -> Iterator[T]:
        """The rows of the record `key`, in their order.

        Raises:
            CorruptRecord: The record is no Parquet file, or a page of it is damaged.
        """
        try:
            for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(batch_size=BATCH):
                yield from map(self.from_row, *map(to_values, batch.columns))
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(key, error) from error


def metadata(data: bytes, key: str) -> dict[str, str]:
    """What `Table.write` put into the footer.

    Raises:
        CorruptRecord: The record is no Parquet file.
    """
    try:
        footer = pq.ParquetFile(pa.BufferReader(data)).schema_arrow.metadata or {}
    except pa.ArrowException as error:
        raise _unreadable(key, error) from error
    return {name.decode(): value.decode() for name, value in footer.items()}


def counts(data: bytes, key: str, columns: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How often each combination of values stands in some columns of a record; no other column is read.

    Raises:
        CorruptRecord: The record is no Parquet file, or a page of it is damaged.
    """
    found: Counter[tuple[str, ...]] = Counter()
    try:
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(batch_size=BATCH, columns=list(columns)):
            found.update(zip(*map(to_values, batch.columns), strict=True))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(key, error) from error
    return found


def _unreadable(key: str, error: Exception) -> CorruptRecord:
    return CorruptRecord(f"The catalog's record {key} can't be read: {error}", hint="Restore it from a backup.")


ENTRIES: Table[Entry] = Table(
    pa.schema([("path", pa.string()), ("size", pa.int64()), ("digest", pa.string())]),
    lambda entry: (entry.path, entry.size, entry.digest),
    Entry,
)

ORIGINS: Table[Origin] = Table(
    pa.schema(
        [
            ("path", pa.string()),
            ("source", pa.string()),
            ("key", pa.string()),
            ("size", pa.int64()),
            ("pin_kind", pa.string()),
            ("pin_value", pa.string()),
            ("pin_strength", pa.string()),
            ("proof", pa.string()),
            ("digest", pa.string()),
            ("modified", pa.float64()),
            ("position", pa.int64()),
            ("state", pa.string()),  # absent from what was written before it
        ]
    ),
    lambda origin: (
        *(origin.path, origin.source, origin.key, origin.size),
        *(origin.pin.kind, origin.pin.value, origin.pin.strength),
        *(origin.proof, origin.digest, UNKNOWN if origin.modified is None else origin.modified),
        *(origin.position, origin.state),
    ),
    lambda path, source, key, size, kind, value, strength, proof, digest, modified, position, state="": Origin(
        *(path, source, key, size, Pin(kind, value, strength), proof, digest),
        *(None if isnan(modified) else modified, position, state),
    ),
)
