"""Which values of a text file's column are not of a type: the first one with its line, and how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from prefect_stagegate.quoting import identifier
from prefect_stagegate.spec.csv_dialect import AS_USUAL, CsvSpec
from prefect_stagegate.validations.files.facts import UnreadableFile
from prefect_stagegate.validations.files.formats import form
from prefect_stagegate.validations.files.text_files import MOST_COUNTED, batches, header_of, line_text
from prefect_stagegate.validations.files.text_values import DATE, FLOAT, MOMENT, TEXT, converted
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.validations.queries.relations import read_json


def refused_values(
    path: Path, column: str, kind: pa.DataType, name: str, csv: CsvSpec, show: Callable[[str], str]
) -> str:
    """Describe the values that are not of a type, as `"n/a" at line 7 is no double (and 2 more)`; empty without any.

    Args:
        path: A CSV or JSON file. All of its values in the column are read, a batch at a time.
        column: The column.
        kind: The type that its values should have.
        name: What the contract calls that type.
        csv: How CSV is written.
        show: Writes a value for a message.
    """
    is_csv = form(path) == "csv"
    csv = csv if is_csv else AS_USUAL.csv
    row, place, count, first = 0, 0, 0, ""
    try:
        for values in _csv_values(path, column, csv) if is_csv else _json_values(path, column):
            refused = pc.and_(pc.is_valid(values), pc.is_null(converted(values, kind, csv)))
            if not count and (at := pc.index(refused, True).as_py()) >= 0:
                first, place = values[at].as_py(), row + at + 1
            count += pc.sum(refused).as_py() or 0
            row += len(values)
    except (UnreadableFile, duckdb.Error, OSError):
        return ""  # other findings say that it can't be read
    if not count:
        return ""
    comma = " with a decimal comma" if csv.decimal == "," else ""
    written = {DATE: f" {csv.dates}", MOMENT: f" {csv.times or 'of ISO 8601'}", FLOAT: comma}.get(kind, "")
    line = line_text(path, csv, place + is_csv)
    return f"{show(first)} at {line} is no {name}{written}" + (f" (and {count - 1:,} more)" if count > 1 else "")


def _csv_values(path: Path, column: str, csv: CsvSpec) -> Iterator[pa.StringArray]:
    place = header_of(path, csv).index(column)
    return (batch.columns[place] for batch in batches(path, csv))


def _json_values(path: Path, column: str) -> Iterator[pa.StringArray]:
    # A value of a column with values of several types is JSON's text, in quotes.
    text = f"trim(CAST({identifier(column)} AS VARCHAR), '\"')"
    with bounded(path.parent, preserve_insertion_order=True) as connection:
        rows = connection.sql(f"SELECT {text} FROM {read_json([path])}")  # noqa: S608 - names are quoted
        yield from (batch.columns[0].cast(TEXT) for batch in rows.to_arrow_reader(MOST_COUNTED))
