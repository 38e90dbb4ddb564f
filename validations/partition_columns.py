"""Columns that folders name, as Hive writes them: `year=2013/month=1/x.parquet`. Pure.

A key is a column of the table when every file of the table has it. Its type is that of all its values: whole numbers,
dates, or text. A column of the same name in a file is not read: DuckDB and Spark read such tables that way, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from urllib.parse import unquote

import pyarrow as pa

from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec.csv_dialect import TextReading
from prefect_stagegate.validations.files.formats import is_text

Value = int | date | str | None
NULL = "__HIVE_DEFAULT_PARTITION__"
"""The value of a folder whose rows have none."""
TYPES = {"BIGINT": pa.int64(), "DATE": pa.date32(), "VARCHAR": pa.string()}
"""The Arrow type of each SQL type that a partition column may have."""
TEXT_MEANING = 2
"""Raise it when text files are read otherwise: what was kept of them counts no more."""

_FOLDER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([^/]*)", re.DOTALL)
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def partition_types(files: Iterable[str]) -> dict[str, str]:
    """The partition columns of a table, each with its SQL type; empty for a table without any.

    Args:
        files: The paths of all of the table's files, relative to the version's folder.

    >>> partition_types(["year=2013/day=2013-01-02/a.parquet", "year=2014/day=x/b.parquet"])
    {'year': 'BIGINT', 'day': 'VARCHAR'}
    >>> partition_types(["year=2013/a.parquet", "b.parquet"])
    {}
    """
    texts = [_texts(file) for file in files]
    keys = [key for key in texts[0] if all(key in others for others in texts)] if texts else []
    return {key: _type({of_file[key] for of_file in texts}) for key in keys}


def partition_values(file: str, types: Mapping[str, str]) -> dict[str, Value]:
    """The values that a file's folders give to the partition columns.

    >>> partition_values("year=2013/a.parquet", {"year": "BIGINT"})
    {'year': 2013}
    """
    texts = _texts(file)
    return {key: _value(texts[key], kind) for key, kind in types.items()}


def row_digests(files: Mapping[str, str], reading: TextReading) -> dict[str, str]:
    """The digest of each file's rows, which hold the values of its folders: two files of the same bytes may differ.

    Without partition columns, that of a file which tells its types is the digest of its bytes. The rows of a text file
    also depend on how it is read.

    Args:
        files: The digest of the bytes of each of a table's files, by its path relative to the version's folder.
        reading: How the table's text files are read.
    """
    types = partition_types(files)
    text = [TEXT_MEANING, reading.csv.model_dump(mode="json", exclude_defaults=True), reading.columns]
    parts = {file: [*([_recorded(file, types)] if types else []), *(text if is_text(file) else [])] for file in files}
    return {file: digest_of([digest, *parts[file]]) if parts[file] else digest for file, digest in files.items()}


def _recorded(file: str, types: Mapping[str, str]) -> dict[str, str | None]:
    values = partition_values(file, types)
    return {name: None if value is None else str(value) for name, value in values.items()}


def with_partitions(schema: pa.Schema, types: Mapping[str, str]) -> pa.Schema:
    """A file's columns, then the partition columns of its table."""
    fields = [field for field in schema if field.name.lower() not in lowered(types)]
    return pa.schema([*fields, *(pa.field(name, TYPES[kind]) for name, kind in types.items())])


def lowered(names: Iterable[str]) -> set[str]:
    """Names as SQL compares them."""
    return {name.lower() for name in names}


def _texts(file: str) -> dict[str, str | None]:
    """The values in a path, decoded; None for a missing value. The innermost folder of a key counts."""
    folders: Sequence[str] = file.split("/")[:-1]
    pairs = [match.groups() for folder in folders if (match := _FOLDER.fullmatch(folder))]
    return {key: None if text == NULL else unquote(text) for key, text in pairs}


def _type(texts: set[str | None]) -> str:
    present = [text for text in texts if text is not None]
    if present and all(_WHOLE.fullmatch(text) for text in present):
        return "BIGINT"
    if present and all(_is_day(text) for text in present):
        return "DATE"
    return "VARCHAR"


def _is_day(text: str) -> bool:
    try:
        return bool(_DAY.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False


def _value(text: str | None, kind: str) -> Value:
    if text is None or kind == "VARCHAR":
        return text
    return int(text) if kind == "BIGINT" else date.fromisoformat(text)
