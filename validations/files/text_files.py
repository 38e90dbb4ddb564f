"""Read the text files of a table in columns by its dialect, a batch of rows at a time.

pyarrow splits the lines as pandas does: it takes any mix of line ends, and refuses a row that does not fit the header.
Messages hold no value and no folder, since defects are recorded.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile, first_line
from prefect_stagegate.validations.files.formats import GZIP
from prefect_stagegate.validations.files.text_values import KINDS, NOTHING, TEXT, common_type, converted, type_of

LONGEST_LINE = 2_000_000
"""Bytes of a row, of its whole text."""
MOST_COUNTED = 1_000_000
"""Rows whose lines are counted; of those behind them the number is told, which leaves out blank lines."""
END = "\n\r\n\r\r\n\n"
"""Blank lines at the end, which only a quote that was never closed takes for its value."""
KNOWN_FILES = 10_000
"""Files whose columns this process remembers."""
ENCODING = "Write it as UTF-8, or declare its encoding beside the table's `files:`, as in `csv: {encoding: latin-1}`."
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
SEPARATORS = {",": "a comma", ";": ";", "\t": "a tab", "|": "|"}
_ROW = re.compile(r"Row #(\d+): (?:Expected (\d+) columns, got (\d+))?")


class _Utf8(io.RawIOBase):
    """The bytes of a text file as UTF-8, with `END` behind them."""

    def __init__(self, path: Path, encoding: str) -> None:
        self._file = opened(path)
        self._decode = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)().decode
        self._ready, self._ended = b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while len(self._ready) < len(buffer) and not self._ended:
            read = self._file.read(len(buffer))
            self._ready += self._decode(read, not read).encode() if self._decode else read
            if not read:
                self._ended, self._ready = True, self._ready + END.encode()
        taken, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._file.close()
        super().close()


def opened(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked."""
    return cast("IO[bytes]", gzip.open(path)) if path.name.lower().endswith(GZIP) else path.open("rb")


def separator(path: Path, dialect: CsvSpec) -> str:
    """What separates the columns of a file: by its name where the dialect does not say it."""
    by_name = "\t" if path.name.lower().removesuffix(GZIP).endswith(".tsv") else ","
    return dialect.separator or by_name


def _records(path: Path, dialect: CsvSpec) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the line on which it begins, from 1."""
    data = io.BufferedReader(_Utf8(path, dialect.encoding))
    with io.TextIOWrapper(data, "utf-8-sig", errors="replace", newline="") as text:
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
    if dialect.header is not True:
        return list(dialect.header)
    with _refusing(path, dialect):
        line, names = next(_records(path, dialect), (0, []))
    if line != 1:
        raise UnreadableFile("it can't be read as CSV: its first line is blank, where its header should be")
    if any("\ufffd" in name for name in names):
        raise UnreadableFile(f"it can't be read as CSV: its header is no {dialect.encoding.upper()}", ENCODING)
    other = next((mark for mark in SEPARATORS if mark in names[0]), "") if len(names) == 1 else ""
    if other and not dialect.separator:
        problem = f"its columns are separated by {SEPARATORS[other]}, not by {SEPARATORS[separator(path, dialect)]}"
        fix = f"Declare it beside the table's `files:` as `csv: {{separator: {dumps(other)}}}`."
        raise UnreadableFile(problem, fix)
    return names


def line_text(path: Path, dialect: CsvSpec, row: int) -> str:
    """Where the row of this number stands, from 1 and with the header: its line, or its number where it is far."""
    try:
        if row <= MOST_COUNTED and (found := next(islice(_records(path, dialect), row - 1, None), None)):
            return f"line {found[0]:,}"
    except csv.Error:
        pass
    return f"row {row:,}"


def batches(path: Path, dialect: CsvSpec, only: str = "") -> Iterator[pa.RecordBatch]:
    """The rows of a file as texts, null for a missing value; with `only` those of one column.

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
        include_columns=[only] if only else None,
    )
    names = None if dialect.header is True else header
    parse = arrow_csv.ParseOptions(delimiter=separator(path, dialect), newlines_in_values=True)
    # Without threads, errors name the row.
    read = arrow_csv.ReadOptions(use_threads=False, block_size=LONGEST_LINE, column_names=names)
    row = int(names is None)
    with _refusing(path, dialect), arrow_csv.open_csv(_Utf8(path, dialect.encoding), read, parse, convert) as rows:
        for batch in rows:
            row += batch.num_rows
            if batch.num_rows and str(batch.columns[-1][-1]).endswith(END):
                raise UnreadableFile(
                    f"it can't be read as CSV: {line_text(path, dialect, row)}: a quote is never closed"
                )
            if len(header) == 1 and pc.any(pc.match_substring_regex(batch.columns[0], r"^\s+$")).as_py():
                # A reader that skips blank lines has a row less.
                raise UnreadableFile("it can't be read as CSV: a line holds nothing but blanks")
            yield batch


@contextmanager
def _refusing(path: Path, dialect: CsvSpec) -> Iterator[None]:
    """Turn what says that a file can't be read into its defect."""
    try:
        yield
    except csv.Error as error:
        raise UnreadableFile(f"its header can't be read: {first_line(error)}") from error
    except pa.ArrowInvalid as error:
        raise UnreadableFile(f"it can't be read as CSV: {_reason(path, dialect, error)}", _fix(error)) from error
    except UnicodeError as error:
        raise UnreadableFile(f"it is no {dialect.encoding.upper()}: {first_line(error)}", ENCODING) from error
    except DAMAGED as error:
        raise UnreadableFile(f"it can't be read as gzip: {first_line(error)}") from error


def _reason(path: Path, dialect: CsvSpec, error: pa.ArrowInvalid) -> str:
    row, text = _ROW.search(str(error)), str(error)
    if row and row[2]:
        return f"{line_text(path, dialect, int(row[1]))}: expected {count_text(int(row[2]), 'column')}, found {row[3]}"
    if row and "UTF8" in text:
        return f"{line_text(path, dialect, int(row[1]))}: it is no UTF-8"
    return f"a line is longer than {LONGEST_LINE:,} bytes" if "straddling" in text else first_line(error)


def _fix(error: pa.ArrowInvalid) -> str:
    return ENCODING if "UTF8" in str(error) else UnreadableFile("").fix


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


class TextFiles:
    """The text files of a table as one stream of typed rows, which DuckDB opens anew for each query."""

    def __init__(self, paths: Sequence[Path], reading: TextReading, filename: str, *, as_text: bool) -> None:
        """Read `paths`; `filename` names the column to add, which holds each row's file.

        Raises:
            UnreadableFile, OSError: A file can't be read.
        """
        self._paths, self._dialect = paths, reading.csv
        kinds: dict[str, list[pa.DataType]] = {}
        for path in paths:
            schema = None if as_text else facts_of(path, reading.csv).schema
            for field in schema or [pa.field(name, TEXT) for name in header_of(path, reading.csv)]:
                kinds.setdefault(field.name, []).append(field.type)
        declared = {name: KINDS.get(kind, NOTHING) for name, kind in reading.columns}
        self._kinds = {
            name: _settled(common_type(of_files, reading.csv), declared.get(name)) for name, of_files in kinds.items()
        }
        fields = [pa.field(name, kind) for name, kind in self._kinds.items()]
        self.schema = pa.schema([*fields, pa.field(filename, TEXT)])

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows, by Arrow's PyCapsule protocol."""
        return pa.RecordBatchReader.from_batches(self.schema, self._rows()).__arrow_c_stream__(requested_schema)

    def _rows(self) -> Iterator[pa.RecordBatch]:
        for path in self._paths:
            places = {name: place for place, name in reversed(list(enumerate(header_of(path, self._dialect))))}
            for batch in batches(path, self._dialect):
                columns = [
                    converted(batch.columns[places[name]], kind, self._dialect)
                    if name in places
                    else pa.nulls(batch.num_rows, kind)
                    for name, kind in self._kinds.items()
                ]
                file = pa.repeat(pa.scalar(str(path)), batch.num_rows)
                yield pa.RecordBatch.from_arrays([*columns, file], schema=self.schema)


def _settled(kind: pa.DataType, declared: pa.DataType | None) -> pa.DataType:
    """The type that a column is read as: where it has no value, or is declared as text, the contract decides."""
    if declared == TEXT or kind == NOTHING:
        return declared if declared not in (None, NOTHING) else TEXT
    return kind
