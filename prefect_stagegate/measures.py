"""What can be measured about the rows of a version: figures only, never a value that stands in a sensitive column.

A check asks `Measures`; the operations answer it, by queries over the version's files on this node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Rows of one table that share their key with an earlier one."""

    rows: int
    duplicates: int
    """Rows beyond the first of each key; keys with missing values are equal when the rest is."""
    files: tuple[str, ...] = ()
    """Two files at most that hold some of them, as paths in the dataset."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What the splits of a dataset share."""

    counts: Mapping[str, int]
    """Records, or files, by split."""
    shared: Mapping[tuple[str, ...], int]
    """How many stand in each combination of two splits or more that has any."""


@dataclass(frozen=True, slots=True)
class Balance:
    """How often each value of one column occurs."""

    labelled: int
    """Rows that have a value."""
    unlabelled: int
    classes: int
    """Distinct values."""
    smallest: str = ""
    """The rarest value, as text."""
    smallest_rows: int = 0


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How far one column's values moved."""

    table: str
    column: str
    distance: float | None
    """None when there is nothing to compare."""
    method: str = ""
    """`wasserstein` or `jensen-shannon`."""
    skipped: str = ""
    """Why there is no distance; empty when there is one."""

    @property
    def name(self) -> str:
        """Table and column."""
        return f"{self.table}.{self.column}"


@dataclass(frozen=True, slots=True)
class TableDrift:
    """How far one table moved."""

    rows: int
    reference_rows: int
    columns: tuple[ColumnDrift, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in the text columns of one table."""

    rows: int
    scanned: tuple[str, ...]
    """Columns that were looked at."""
    unscanned: Mapping[str, str]
    """Columns that may hold text and were not looked at, with the reason."""
    hits: Mapping[tuple[str, str], int]
    """Rows by column and pattern, where there are any."""


class Measures(Protocol):
    """Queries over the version's files. Each brings the version to this node when it isn't here.

    Every method may raise a `StagegateError`: a file or column can't be read, or the version can't be brought.
    """

    def duplicates(self, table: str, keys: Sequence[str]) -> Duplicates:
        """Count the rows of a table that share the values of `keys`."""

    def shared_files(self, splits: Mapping[str, str]) -> Overlap:
        """Compare the contents of the files that each split's glob names. Reads the manifest only."""

    def shared_records(self, splits: Mapping[str, str], by: Sequence[str]) -> Overlap:
        """Compare the records in the files that each split's glob names, by the columns `by`."""

    def balance(self, table: str, column: str) -> Balance:
        """Count the values of a column."""

    def drift(self, reference: str, ignored: Sequence[str]) -> Mapping[str, TableDrift]:
        """Compare each table with the same one of the version `reference`.

        Args:
            reference: Its digest. It is brought to this node, too.
            ignored: Columns, as `table.column` or by their name alone, that aren't compared.
        """

    def scan(self, table: str, columns: Sequence[str], ignored: Sequence[str], patterns: Sequence[str]) -> Scan:
        """Look for patterns in columns of a table; in all that hold text when none are named."""

    def columns(self, digest: str, tables: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """The columns of tables in a version of the dataset, each with its type; none for a table without files.

        Args:
            digest: The version's. It is brought to this node.
            tables: Names in the contract.
        """

    def outside_tables(self) -> int:
        """How many files of the version belong to no table of the contract."""
