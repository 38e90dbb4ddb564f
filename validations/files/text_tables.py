"""Probes of tables in text, CSV and JSON lines, which are read as the queries over a table do.

DuckDB's own errors quote lines and name this node's folders, and defects are recorded. So only their reason is kept.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import duckdb

from prefect_stagegate.spec.csv_dialect import AS_USUAL, CsvSpec
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile, first_line, nonempty
from prefect_stagegate.validations.files.formats import GZIP
from prefect_stagegate.validations.files.text_files import DAMAGED, facts_of, opened
from prefect_stagegate.validations.files.texts import BLOCK, check_json_lines
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.validations.queries.relations import json_schema, read_json

ODD_KEYS = "a line is too long, or its objects have no key, an empty one or too many"
"""What is wrong with JSON lines where DuckDB names no line."""
_MALFORMED = re.compile(r"in line \d+: ([^.]*)")


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
