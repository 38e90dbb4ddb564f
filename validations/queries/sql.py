"""DuckDB's SQL for reading a table's files, with every name quoted."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from prefect_stagegate.quoting import literal

PARQUET = (".parquet", ".pq")
QUOTE = '"'
"""Surrounds a CSV value that holds a separator. Inside such a value it is doubled (RFC 4180)."""
CSV_NULLS = ("", "NA")
"""CSV values that every engine reads as missing."""


def texts(values: Iterable[str]) -> str:
    """Quote a list of strings."""
    return "[" + ", ".join(literal(value) for value in values) + "]"


def _names(paths: Sequence[Path]) -> str:
    # DuckDB takes every name for a pattern, so a bracket or star in one is escaped.
    return texts(glob.escape(str(path)) for path in paths)


def separator(path: Path) -> str:
    """What separates the columns of a text file, by its name."""
    return "\t" if ".tsv" in path.suffixes else ","


def read_csv(paths: Sequence[Path], *, filename: str = "", as_text: bool = False) -> str:
    """A relation over CSV files with one separator. DuckDB infers types from all rows, unless `as_text` is set."""
    types = "all_varchar=true" if as_text else "sample_size=-1"
    return (
        f"read_csv({_names(paths)}, header=true, delim={literal(separator(paths[0]))}, "
        f"quote='{QUOTE}', escape='{QUOTE}', {types}, nullstr={texts(CSV_NULLS)}, union_by_name=true, "
        f"hive_partitioning=false{_filename(filename)})"
    )


def read_parquet(paths: Sequence[Path], *, filename: str = "") -> str:
    """A relation over Parquet files."""
    return f"read_parquet({_names(paths)}, union_by_name=true, hive_partitioning=false{_filename(filename)})"


def _filename(column: str) -> str:
    return f", filename={literal(column)}" if column else ""


def relation(paths: Sequence[Path], *, filename: str = "", as_text: bool = False) -> str:
    """A query over all of `paths`, columns matched by name.

    Args:
        paths: At least one file of a table, in any mix of formats.
        filename: The name of a column to add, which holds each row's file.
        as_text: Read all values of CSV files as text, numbers too.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault("parquet" if path.suffix.lower() in PARQUET else separator(path), []).append(path)
    parts = [
        read_parquet(group, filename=filename)
        if form == "parquet"
        else read_csv(group, filename=filename, as_text=as_text)
        for form, group in groups.items()
    ]
    return " UNION ALL BY NAME ".join(f"SELECT * FROM {part}" for part in parts)  # noqa: S608 - names are quoted
