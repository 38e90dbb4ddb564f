"""Probes: each opens one file and finds out whether it is readable.

A probe is a function that takes a file's path, returns `Facts`, and raises `UnreadableFile` when the file has a
defect. To add one, write the function and name it in `DECODERS` of the module `facts`, or in a plugin.

DuckDB's own errors quote lines and name this node's folders, and defects are recorded. So only their reason is kept.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from prefect_stagegate.spec.csv_dialect import AS_USUAL, CsvSpec
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.arrow import batches, schema_of
from prefect_stagegate.validations.files.facts import Facts, Probe, UnreadableFile, first_line, nonempty
from prefect_stagegate.validations.files.formats import ARROW, GZIP, JSON
from prefect_stagegate.validations.files.text_files import DAMAGED, facts_of, opened
from prefect_stagegate.validations.files.texts import BLOCK, check_json_lines
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.validations.queries.relations import json_schema, read_json

MAGIC = b"PAR1"
TAIL = 8
"""Bytes at the end of a Parquet file: the footer's length and `PAR1`."""
ODD_KEYS = "a line is too long, or its objects have no key, an empty one or too many"
"""What is wrong with JSON lines where DuckDB names no line."""
_MALFORMED = re.compile(r"in line \d+: ([^.]*)")


def parquet(path: Path) -> Facts:
    """The footer is readable, and all that it points to lies within the file. `parquet-pages` reads the pages."""
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


def parquet_pages(path: Path) -> Facts:
    """Every page decodes. Reads the whole file, a batch of rows at a time."""
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


def csv_rows(path: Path, csv: CsvSpec = AS_USUAL.csv) -> Facts:
    """There is a header, and every row has its columns. Reads the whole file."""
    nonempty(path)
    return facts_of(path, csv)


def json_rows(path: Path) -> Facts:
    """Every line is a JSON object. Reads the whole file."""
    _check_bytes(path)
    try:
        with bounded(path.parent) as connection:
            rows = connection.sql(f"SELECT count(*) FROM {read_json([path])}").fetchall()[0][0]  # noqa: S608 - quoted
            return Facts(json_schema(connection, [path]), rows)
    except duckdb.Error as error:
        with opened(path) as file:
            check_json_lines(file, objects=True)
        malformed = _MALFORMED.search(str(error))
        reason = malformed[1] if malformed else ODD_KEYS
        raise UnreadableFile(f"it can't be read as JSON lines: {reason}") from error


def _check_bytes(path: Path) -> None:
    """Refuse an empty file, and a compressed one with a wrong checksum, which DuckDB does not compare."""
    nonempty(path)
    if not path.name.lower().endswith(GZIP):
        return
    try:
        with gzip.open(path) as file:
            while file.read(BLOCK):
                pass
    except DAMAGED as error:
        raise UnreadableFile(f"it can't be read as gzip: {first_line(error)}") from error


OPENERS: dict[str, Probe] = {"nonempty": nonempty, "parquet": parquet, "csv": csv_rows}
"""Probes that say what a table's file has, or cost next to nothing: they run in this process, each time."""
TABLE_ONLY: dict[str, Probe] = {"json-rows": json_rows, "arrow-batches": arrow_batches}
"""Probes that only tables have, as `OPENERS`: a contract's `files` don't name them."""
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
