"""Probes of tables in text, CSV and JSON lines: DuckDB reads them as the queries over a table do.

DuckDB's own errors quote lines and name this node's folders, and defects are recorded. So only their reason is kept.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import IO, cast

import duckdb

from prefect_stagegate.validations.columntypes import whole_numbers
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile, first_line, nonempty
from prefect_stagegate.validations.files.texts import BLOCK, check_json_lines
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.validations.queries.sql import GZIP, read_csv, read_json, separator

LONGEST_HEADER = 2_000_000
"""Characters that are searched for the end of a header: DuckDB reads no longer line."""
DIALECT = "its lines end in different ways, or a quote is never closed"
"""What is wrong where DuckDB names no line."""
ODD_KEYS = "a line is too long, or its objects have no key, an empty one or too many"
"""The same of JSON."""
_LINE = re.compile(r"CSV Error on Line: (\d+)")
_REASON = re.compile(
    r"Expected Number of Columns: \d+ Found: \d+|Value with unterminated quote found|Invalid unicode"
    r"|Maximum line size of \d+ bytes exceeded"
)
_MALFORMED = re.compile(r"in line \d+: ([^.]*)")


def csv_rows(path: Path) -> Facts:
    """There is a header, and every row has its columns. Reads the whole file."""
    _check_bytes(path)
    try:
        facts = _read(path, read_csv([path]))
    except duckdb.Error as error:
        reason = _reason_with_line(error) or _reason_without_dialect(path)
        raise UnreadableFile(f"it can't be read as CSV: {reason}") from error
    if not header_of(path):
        raise UnreadableFile("it can't be read as CSV: its first line is blank, where its header should be")
    return facts


def header_of(path: Path) -> list[str]:
    """The names in the first line of a text file with columns; none where that line is blank.

    Raises:
        UnreadableFile: A name is longer than 131,072 characters.
    """
    with _opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="") as text:
        rows = csv.reader(io.StringIO(text.read(LONGEST_HEADER), newline=""), delimiter=separator(path))
        try:
            return next(rows, [])
        except csv.Error as error:
            raise UnreadableFile(f"its header can't be read: {first_line(error)}") from error


def json_rows(path: Path) -> Facts:
    """Every line is a JSON object. Reads the whole file."""
    _check_bytes(path)
    try:
        facts = _read(path, read_json([path]))
    except duckdb.Error as error:
        with _opened(path) as file:
            check_json_lines(file, objects=True)
        malformed = _MALFORMED.search(str(error))
        reason = malformed[1] if malformed else ODD_KEYS
        raise UnreadableFile(f"it can't be read as JSON lines: {reason}") from error
    return Facts(whole_numbers(facts.schema), facts.rows)


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.name.lower().endswith(GZIP) else path.open("rb")


def _check_bytes(path: Path) -> None:
    """Refuse an empty file, and a compressed one with a wrong checksum, which DuckDB does not compare."""
    nonempty(path)
    if not path.name.lower().endswith(GZIP):
        return
    try:
        with gzip.open(path) as file:
            while file.read(BLOCK):
                pass
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UnreadableFile(f"it can't be read as gzip: {first_line(error)}") from error


def _read(path: Path, source: str) -> Facts:
    with bounded(path.parent) as connection:
        relation = connection.sql(f"SELECT * FROM {source}")  # noqa: S608 - names are quoted
        schema = relation.limit(0).to_arrow_table().schema
        rows = relation.count("*").fetchall()[0][0]
    return Facts(schema, rows)


def _reason_with_line(error: duckdb.Error) -> str:
    """Which line DuckDB refuses, and why; empty where it names none."""
    line, reason = _LINE.search(str(error)), _REASON.search(str(error))
    return f"line {int(line[1]):,}: {reason[0] if reason else 'it does not fit the header'}" if line else ""


def _reason_without_dialect(path: Path) -> str:
    """The reason where DuckDB found no dialect for the file, so that it named no line: that of reading text only."""
    header = header_of(path)
    if any("\ufffd" in name for name in header):
        return "its header is no UTF-8"
    types = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(header) or 1))
    try:
        with bounded(path.parent) as connection:
            connection.sql(f"SELECT count(*) FROM {read_csv([path], types=f'{{{types}}}')}").fetchall()  # noqa: S608
    except duckdb.Error as error:
        return _reason_with_line(error) or DIALECT
    return DIALECT
