"""Read the text files of a table in columns by its dialect, a batch of rows at a time.

pyarrow splits the lines as pandas does: it takes any mix of line ends, and refuses a row that does not fit the header.
Messages hold no value and no folder, since defects are recorded.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from json import dumps
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from prefect_stagegate.spec.csv_dialect import CsvSpec, TextReading
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.facts import REWRITE, Facts, UnreadableFile, first_line
from prefect_stagegate.validations.files.formats import GZIP, form
from prefect_stagegate.validations.files.text_values import NOTHING, TEXT, common_type, converted, type_named, type_of

LONGEST_LINE = 2_000_000
"""Bytes of a row, of its whole text."""
MOST_COUNTED = 1_000_000
"""Rows whose lines are counted; of those behind them the number is told, which leaves out blank lines."""
END = b"\n\r\n\r\r\n\n"
"""Blank lines at the end, which only a quote that was never closed takes for its value."""
KNOWN_FILES = 10_000
"""Files whose columns this process remembers."""
ENCODING = "Write it as UTF-8, or declare its encoding beside the table's `files:`, as in `csv: {encoding: latin-1}`."
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
SEPARATORS = {",": "a comma", ";": ";", "\t": "a tab", "|": "|"}
_ROW = re.compile(r"Row #(\d+): (?:Expected (\d+) columns, got (\d+))?")


class _Ended(io.RawIOBase):
    """A text file's bytes with `END` behind them."""

    def __init__(self, path: Path) -> None:
        self._file, self._end = opened(path), END

    def readable(self) -> bool:
        return True

    def read(self, size: int = LONGEST_LINE) -> bytes:
        room = size - len(END)
        data = self._file.read(room)
        if len(data) < room:
            data, self._end = data + self._end, b""
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


def opened(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked."""
    return cast("IO[bytes]", gzip.open(path)) if path.name.lower().endswith(GZIP) else path.open("rb")


def separator(path: Path, dialect: CsvSpec) -> str:
    """What separates the columns of a file: by its name where the dialect does not say it."""
    return dialect.separator or ("\t" if path.name.lower().removesuffix(GZIP).endswith(".tsv") else ",")


def _records(path: Path, dialect: CsvSpec) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the line on which it begins, from 1; of JSON lines without values."""
    encoding = dialect.encoding.replace("utf-8", "utf-8-sig")
    with io.TextIOWrapper(opened(path), encoding, newline="") as text:
        if form(path) == "json":
            yield from ((line, []) for line, row in enumerate(text, 1) if row.strip())
            return
        rows = csv.reader(iter(lambda: text.readline(LONGEST_LINE), ""), delimiter=separator(path, dialect))
        line = 1
        for row in rows:
            if row:
                yield line, row
            line = rows.line_num + 1


def header_of(path: Path, dialect: CsvSpec) -> list[str]:
    """The names of a file's columns, as they are written.

    Raises:
        UnreadableFile: There is no header, or another character separates its names.
    """
    with _refusing(path, dialect):
        line, names = next(_records(path, dialect), (0, []))
    if line != 1:
        raise UnreadableFile("it can't be read as CSV: its first line is blank, where its header should be")
    other = next((mark for mark in SEPARATORS if mark in names[0]), "") if len(names) == 1 else ""
    if other and not dialect.separator:
        problem = f"its columns are separated by {SEPARATORS[other]}, not by {SEPARATORS[separator(path, dialect)]}"
        fix = f"Declare it beside the table's `files:` as `csv: {{separator: {dumps(other)}}}`."
        raise UnreadableFile(problem, fix)
    return names


def line_text(path: Path, dialect: CsvSpec, row: int) -> str:
    """Where the row of this number stands, from 1 and with the header: its line, or its number where it is far."""
    with suppress(csv.Error, UnicodeError):
        if row <= MOST_COUNTED and (found := next(islice(_records(path, dialect), row - 1, None), None)):
            return f"line {found[0]:,}"
    return f"row {row:,}"


def batches(path: Path, dialect: CsvSpec) -> Iterator[pa.RecordBatch]:
    """The rows of a file as texts, null for a missing value.

    Raises:
        UnreadableFile: A row does not fit the header, or can't be read.
        OSError: The file can't be opened.
    """
    header = header_of(path, dialect)
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(header, TEXT),
        null_values=list(dialect.null),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    parse = arrow_csv.ParseOptions(delimiter=separator(path, dialect), newlines_in_values=True)
    # Without threads, errors name the row.
    read = arrow_csv.ReadOptions(use_threads=False, block_size=LONGEST_LINE, encoding=dialect.encoding)
    row = 1
    with _refusing(path, dialect), arrow_csv.open_csv(_Ended(path), read, parse, convert) as rows:
        for batch in rows:
            row += batch.num_rows
            if batch.num_rows and str(batch.columns[-1][-1]).endswith(END.decode()):
                line = line_text(path, dialect, row)
                raise UnreadableFile(f"it can't be read as CSV: {line}: a quote is never closed")
            if len(header) == 1 and pc.any(pc.match_substring_regex(batch.columns[0], r"^\s+$")).as_py():
                # A reader that skips blank lines has a row less.
                raise UnreadableFile("it can't be read as CSV: a line holds nothing but blanks")
            yield batch


@contextmanager
def _refusing(path: Path, dialect: CsvSpec) -> Iterator[None]:
    """Turn what says that a file can't be read into its defect."""
    try:
        yield
    except DAMAGED as error:
        raise UnreadableFile(f"it can't be read as gzip: {first_line(error)}") from error
    except (csv.Error, pa.ArrowInvalid, UnicodeError) as error:
        text, row = str(error), _ROW.search(str(error))
        is_other_encoding = "UTF8" in text or isinstance(error, UnicodeError)
        reason = f"a line is longer than {LONGEST_LINE:,} bytes" if "straddling" in text else first_line(error)
        if is_other_encoding:
            reason = f"it is no {dialect.encoding.upper()}"
        elif row and row[2]:
            reason = f"expected {count_text(int(row[2]), 'column')}, found {row[3]}"
        place = f"{line_text(path, dialect, int(row[1]))}: " if row else ""
        fix = ENCODING if is_other_encoding else REWRITE
        raise UnreadableFile(f"it can't be read as CSV: {place}{reason}", fix) from error


def facts_of(path: Path, dialect: CsvSpec) -> Facts:
    """The columns of a file with the types of all of its values, and its rows. Reads the whole file, once."""
    stat = path.stat()
    return _facts(path, dialect, stat.st_size, stat.st_mtime_ns)


@lru_cache(KNOWN_FILES)
def _facts(path: Path, dialect: CsvSpec, *_: int) -> Facts:
    names = header_of(path, dialect)
    kinds, rows = [NOTHING] * len(names), 0
    for batch in batches(path, dialect):
        rows += batch.num_rows
        kinds = [type_of(values, dialect, kind) for values, kind in zip(batch.columns, kinds, strict=True)]
    return Facts(pa.schema(list(map(pa.field, names, kinds))), rows)


def schema_of(paths: Sequence[Path], reading: TextReading, *, as_text: bool = False) -> pa.Schema:
    """The columns of a table's text files, by name, with the type of all of their values.

    Raises:
        UnreadableFile, OSError: A file can't be read.
    """
    kinds: dict[str, list[pa.DataType]] = {}
    for path in paths:
        schema = None if as_text else facts_of(path, reading.csv).schema
        for field in schema or [pa.field(name, TEXT) for name in header_of(path, reading.csv)]:
            kinds.setdefault(field.name, []).append(field.type)
    declared = {name: type_named(kind) for name, kind in reading.columns}
    settled = {name: common_type(of_files, reading.csv) for name, of_files in kinds.items()}
    # Where a column has no value, or is declared as text, the contract decides.
    for name, kind in settled.items():
        if kind == NOTHING or declared.get(name) == TEXT:
            settled[name] = TEXT if declared.get(name) in (None, NOTHING) else declared[name]
    return pa.schema(list(settled.items()))


def typed_batches(path: Path, schema: pa.Schema, csv: CsvSpec) -> Iterator[pa.RecordBatch]:
    """The rows of a file with a table's columns; raises as `batches`."""
    for batch in batches(path, csv):
        names = batch.schema.names
        columns = [
            converted(batch.columns[names.index(field.name)], field.type, csv)
            if field.name in names
            else pa.nulls(batch.num_rows, field.type)
            for field in schema
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
