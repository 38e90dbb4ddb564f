"""Tables in DuckDB's SQL: how files are named and read, whatever they are called."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

PARQUET = (".parquet", ".pq")
QUOTE = '"'
"""What surrounds a value in CSV that holds a separator; doubled, it is itself (RFC 4180)."""
CSV_NULLS = ("", "NA")
"""What stands for a missing value in CSV, for every engine."""


def identifier(name: str) -> str:
    """Quote a name.

    >>> identifier('say "x" now')
    '"say ""x"" now"'
    """
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Quote a string.

    >>> text("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def texts(values: Iterable[str]) -> str:
    """Quote a list of strings."""
    return "[" + ", ".join(text(value) for value in values) + "]"


def _names(paths: Sequence[Path]) -> str:
    # DuckDB takes every name for a pattern, so a bracket or star in one is escaped.
    return texts(glob.escape(str(path)) for path in paths)


def separator(path: Path) -> str:
    """What separates the columns of a text file, by its name."""
    return "\t" if ".tsv" in path.suffixes else ","


def read_csv(paths: Sequence[Path], *, filename: str = "", as_text: bool = False) -> str:
    """A relation over CSV files of one separator; types are inferred from all rows, unless all is to be text."""
    types = "all_varchar=true" if as_text else "sample_size=-1"
    return (
        f"read_csv({_names(paths)}, header=true, delim={text(separator(paths[0]))}, quote='{QUOTE}', escape='{QUOTE}', "
        f"{types}, nullstr={texts(CSV_NULLS)}, union_by_name=true, hive_partitioning=false{_filename(filename)})"
    )


def read_parquet(paths: Sequence[Path], *, filename: str = "") -> str:
    """A relation over Parquet files."""
    return f"read_parquet({_names(paths)}, union_by_name=true, hive_partitioning=false{_filename(filename)})"


def _filename(column: str) -> str:
    return f", filename={text(column)}" if column else ""


def relation(paths: Sequence[Path], *, filename: str = "", as_text: bool = False) -> str:
    """A query over all of `paths`, columns matched by name.

    Args:
        paths: At least one file of a table, in any mix of formats.
        filename: A column to add, with the file that a row stands in.
        as_text: Leave the values of text files as they are written, numbers too.
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
