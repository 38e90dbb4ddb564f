"""Manifests and origins as Parquet: written and read a batch at a time, so that only compressed rows stay in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import Entry, Origin, Pin

BATCH = 16_384
"""Rows that are in memory as Python objects at a time."""

T = TypeVar("T")


@dataclass(frozen=True)
class Table(Generic[T]):
    """How one kind of row is laid out."""

    schema: pa.Schema
    to_row: Callable[[T], dict[str, Any]]
    from_row: Callable[[dict[str, Any]], T]

    def write(self, rows: Iterable[T], metadata: dict[str, str]) -> bytes:
        """The rows as one Parquet file, with `metadata` in its footer."""
        sink = io.BytesIO()
        source = iter(rows)
        with pq.ParquetWriter(sink, self.schema.with_metadata(metadata), compression="zstd") as writer:
            while batch := list(islice(source, BATCH)):
                records = [self.to_row(row) for row in batch]
                writer.write_batch(pa.RecordBatch.from_pylist(records, schema=self.schema))
        return sink.getvalue()

    def read(self, data: bytes, key: str) -> Iterator[T]:
        """The rows of the record `key`, in their order.

        Raises:
            CorruptRecord: The record is no Parquet file, or a page of it is damaged.
        """
        try:
            for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(batch_size=BATCH):
                yield from map(self.from_row, batch.to_pylist())
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


def _unreadable(key: str, error: Exception) -> CorruptRecord:
    return CorruptRecord(f"The catalog's record {key} can't be read: {error}", hint="Restore it from a backup.")


ENTRIES: Table[Entry] = Table(
    pa.schema([("path", pa.string()), ("size", pa.int64()), ("digest", pa.string())]),
    lambda entry: {"path": entry.path, "size": entry.size, "digest": entry.digest},
    lambda row: Entry(**row),
)

ORIGINS: Table[Origin] = Table(
    pa.schema(
        [
            ("path", pa.string()),
            ("source", pa.dictionary(pa.int32(), pa.string())),
            ("key", pa.string()),
            ("size", pa.int64()),
            ("pin_kind", pa.dictionary(pa.int32(), pa.string())),
            ("pin_value", pa.string()),
            ("pin_strength", pa.dictionary(pa.int32(), pa.string())),
            ("proof", pa.dictionary(pa.int32(), pa.string())),
            ("digest", pa.string()),
            ("modified", pa.float64()),
            ("position", pa.int32()),
        ]
    ),
    lambda origin: {
        "path": origin.path,
        "source": origin.source,
        "key": origin.key,
        "size": origin.size,
        "pin_kind": origin.pin.kind,
        "pin_value": origin.pin.value,
        "pin_strength": origin.pin.strength,
        "proof": origin.proof,
        "digest": origin.digest,
        "modified": origin.modified,
        "position": origin.position,
    },
    lambda row: Origin(
        pin=Pin(row.pop("pin_kind"), row.pop("pin_value"), row.pop("pin_strength")),
        **row,
    ),
)
