"""Manifests and origins as Parquet, written and read in batches, so that only compressed rows are in memory."""

from __future__ import annotations

import io
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from math import isnan, nan
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from prefect_stagegate.catalog.records import dataset_of
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import Entry, Origin, Pin, Pins
from prefect_stagegate.model.manifest import Seal

UNKNOWN = nan
"""Stands for an unknown modification time."""
BATCH = 16_384
"""Rows that are in memory as Python objects at a time."""
NUMBERS: dict[Any, Any] = {pa.int64(): "q", pa.float64(): "d"}
"""The array module's type code for each numeric type; all other columns are texts."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Footer:
    """A record's metadata about all of its rows."""

    version: Seal
    rows: int
    """How many rows the record has, as Parquet itself counts them."""
    pins: Pins | None = None
    """The summary of the rows' pins; None where the record has none."""


@dataclass(frozen=True)
class RowLayout(Generic[T]):
    """The columns of one kind of row, and its conversion to them and back.

    Readers raise `CorruptRecord`, which names the record `key`, for what `write` did not write, or for a damaged page.
    """

    schema: pa.Schema
    to_row: Callable[[T], tuple[Any, ...]]
    """One value for each field of the schema."""
    from_row: Callable[..., T]
    """Takes the values in the same order."""

    def write(self, rows: Iterable[T], version: Seal, pins: Pins | None = None) -> bytes:
        """The rows as one Parquet file, with the version's figures and the summary of its pins in the footer."""
        sink = io.BytesIO()
        source = iter(rows)
        facts = {"digest": version.digest, "files": str(version.files), "bytes": str(version.bytes)}
        if pins:
            facts["pins"] = f"{pins.kind} {pins.strength} {pins.weak}"
        schema = self.schema.with_metadata(facts)
        with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
            while batch := list(islice(source, BATCH)):
                values = zip(*map(self.to_row, batch), strict=True)
                columns = [to_column(kind, column) for kind, column in zip(self.schema.types, values, strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        return sink.getvalue()

    def read(self, data: bytes, key: str) -> Iterator[T]:
        """The rows of a record, in their order."""
        with _explained(key):
            for batch in _opened(data, self.schema).iter_batches(batch_size=BATCH):
                yield from map(self.from_row, *map(to_values, batch.columns))

    def footer(self, data: bytes, key: str) -> Footer:
        """The footer of a record, of which `data` is all, or so much of its end as `footer_size` says."""
        with _explained(key):
            file = _opened(data, self.schema)
            facts = {name.decode(): value.decode() for name, value in (file.schema_arrow.metadata or {}).items()}
            version = Seal(facts["digest"], int(facts["files"]), int(facts["bytes"]))
            return Footer(version, file.metadata.num_rows, _read_pins(facts.get("pins", "")))

    def counts(self, data: bytes, key: str, columns: Sequence[str]) -> Counter[tuple[str, ...]]:
        """The number of rows for each combination of values of some columns. Reads no other column."""
        counts: Counter[tuple[str, ...]] = Counter()
        with _explained(key):
            for batch in _opened(data, self.schema).iter_batches(batch_size=BATCH, columns=list(columns)):
                counts.update(zip(*map(to_values, batch.columns), strict=True))
        return counts


def to_column(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """A column of numbers or texts, without nulls."""
    # By the column's buffers: Arrow's own conversion imports pandas, which costs a third of a second.
    if kind in NUMBERS:
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array(NUMBERS[kind], values))])
    texts = [text.encode() for text in values]
    # Offsets of 32 bits, as `pa.string` has them: a batch stays far below 2 GiB.
    ends = array("i", accumulate(map(len, texts), initial=0))
    return pa.Array.from_buffers(kind, len(texts), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])


def to_values(column: pa.Array) -> list[Any]:
    """The values of a column of numbers or texts, without nulls."""
    first, last = column.offset, column.offset + len(column)
    if column.type in NUMBERS:
        numbers: list[Any] = memoryview(column.buffers()[1]).cast("B").cast(NUMBERS[column.type])[first:last].tolist()
        return numbers
    _, ends, texts = column.buffers()
    bounds = memoryview(ends).cast("B").cast("i")[first : last + 1]
    # A column of empty texts has no buffer.
    data = memoryview(texts or b"")
    return [str(data[start:end], "utf-8") for start, end in pairwise(bounds)]


def footer_size(end: bytes) -> int:
    """Length of a Parquet file's footer in bytes, as the file's last eight bytes say."""
    return int.from_bytes(end[-8:-4], "little") + 8


def _read_pins(text: str) -> Pins | None:
    if not text:
        return None
    kind, strength, weak = text.rsplit(" ", 2)
    return Pins(kind, "weak" if strength == "weak" else "strong", int(weak))


def _opened(data: bytes, schema: pa.Schema) -> pq.ParquetFile:
    """A Parquet file with the columns of a schema; files of earlier releases may lack the last ones.

    Raises:
        ValueError: It has other columns.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    columns = list(file.schema_arrow)
    if columns != list(schema)[: len(columns)]:
        raise ValueError("its columns are not those of such a record")
    return file


@contextmanager
def _explained(key: str) -> Iterator[None]:
    """Turn every error of Arrow, or of a value, into a `CorruptRecord` that names the record."""
    try:
        yield
    except CorruptRecord:
        raise
    except Exception as error:
        # A damaged file can make Arrow, and the conversion of its values, raise nearly anything.
        raise CorruptRecord(
            f"The catalog's record {key} can't be read: {error}",
            hint="Restore it from a backup.",
            dataset=dataset_of(key),
        ) from error


ENTRIES: RowLayout[Entry] = RowLayout(
    pa.schema([("path", pa.string()), ("size", pa.int64()), ("digest", pa.string())]),
    lambda entry: (entry.path, entry.size, entry.digest),
    Entry,
)

ORIGINS: RowLayout[Origin] = RowLayout(
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
            ("state", pa.string()),  # missing in records of earlier releases
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
