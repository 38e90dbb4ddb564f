"""Probes: each opens one file and finds out whether it is readable.

A probe is a function that takes a file's path, returns `Facts`, and raises `UnreadableFile` when the file has a
defect. To add one, write the function and name it in `DECODERS` of the module `decoders`, or in a plugin.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.arrow import batches, schema_of
from prefect_stagegate.validations.files.decoders import DECODERS
from prefect_stagegate.validations.files.facts import Facts, Probe, UnreadableFile, first_line, nonempty
from prefect_stagegate.validations.files.formats import ARROW, GZIP, JSON
from prefect_stagegate.validations.files.text_tables import csv_rows, json_rows

MAGIC = b"PAR1"
TAIL = 8
"""Bytes at the end of a Parquet file: the footer's length and `PAR1`."""


def parquet(path: Path) -> Facts:
    """The footer is readable, and everything that it points to lies within the file.

    It reads the footer only. The probe `parquet-pages` and the queries over a table read the pages.
    """
    size, footer = _parquet_footer(path)
    try:
        with pq.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"the Parquet footer can't be read: {first_line(error)}") from error
    _check_row_groups(metadata, data_end=size - TAIL - footer)
    return Facts(schema, metadata.num_rows)


def _parquet_footer(path: Path) -> tuple[int, int]:
    """The sizes of the file and of its footer, once the magic bytes at both ends and the footer's length are right."""
    nonempty(path)
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        tail = file.read()
    if head != MAGIC:
        raise UnreadableFile("it is no Parquet file: it doesn't begin with PAR1")
    if len(tail) < TAIL or tail[4:] != MAGIC:
        raise UnreadableFile(f"truncated: the Parquet footer is missing after {count_text(size, 'byte')}")
    footer: int = struct.unpack("<I", tail[:4])[0]
    if footer > size - TAIL - len(MAGIC):
        raise UnreadableFile(f"truncated: the footer claims {count_text(footer, 'byte')}, and the file has {size:,}")
    return size, footer


def _check_row_groups(metadata: pq.FileMetaData, *, data_end: int) -> None:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise UnreadableFile("the footer contradicts itself: the rows of its row groups don't add up to the file's")
    for number, group in enumerate(groups):
        for index in range(group.num_columns):
            chunk = group.column(index)
            # A chunk begins with its dictionary, if it has one.
            start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)), default=0)
            end = start + chunk.total_compressed_size
            if start < len(MAGIC) or end > data_end:
                raise UnreadableFile(
                    f"bytes are missing: column {chunk.path_in_schema} of row group {number} "
                    f"should lie at {start:,}-{end:,}, and the data ends at {data_end:,}"
                )


def read_pages(path: Path) -> Facts:
    """Decode every page, a batch of rows at a time."""
    facts = parquet(path)
    read = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                read += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"corrupt: its pages can't be decoded after row {read:,}: {first_line(error)}") from error
    return facts


def arrow_batches(path: Path) -> Facts:
    """Every batch of an Arrow file or stream can be read, and its values lie within it. Reads the whole file."""
    nonempty(path)
    rows = 0
    try:
        schema = schema_of(path)
        for batch in batches(path):
            rows += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"it can't be read as Arrow after row {rows:,}: {first_line(error)}") from error
    return Facts(schema, rows)


OPENERS: dict[str, Probe] = {"nonempty": nonempty, "parquet": parquet, "csv": csv_rows}
"""Probes that say what a table's file has, or cost next to nothing: they run in this process, each time."""
TABLE_ONLY: dict[str, Probe] = {"json-rows": json_rows, "arrow-batches": arrow_batches}
"""Probes that only tables have, as `OPENERS`: a contract's `files` don't name them."""
PROBES = {**OPENERS, **DECODERS}
ALL_PROBES = {**PROBES, **TABLE_ONLY}
UNIQUE = "unique"
"""The probe of all files of a glob together, which compares their digests and opens none."""
UNIQUE_PASSES = "No other file of the glob has the same bytes, whether a sample drew them or not. Opens no file."

TABLE_PROBES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    **{suffix + gzip: "json-rows" for suffix in JSON for gzip in ("", GZIP)},
    **dict.fromkeys(ARROW, "arrow-batches"),
}
"""The probe that opens a table's file, by the end of its name. Files with other endings can't be a table's."""


def table_probe(path: str) -> str:
    """The name of the probe that opens `path` as a table's file; empty when its format isn't known.

    >>> table_probe("a/b.csv.gz"), table_probe("a/b.txt")
    ('csv', '')
    """
    return next((probe for suffix, probe in TABLE_PROBES.items() if path.lower().endswith(suffix)), "")
