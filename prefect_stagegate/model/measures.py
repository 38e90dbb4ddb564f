"""Measurements of a version's rows: figures only, never a value of a sensitive column.

Checks call `Measures`; the operations implement it, by queries over the version's files on this node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias


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
    """Records or files that the splits of a dataset share."""

    counts: Mapping[str, int]
    """Records, or files, by split."""
    shared: Mapping[tuple[str, ...], int]
    """How many are in each combination of two or more splits; combinations without any are left out."""


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
    """How far one column's values moved between two versions."""

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
    """How far one table's columns moved between two versions."""

    rows: int
    reference_rows: int
    columns: tuple[ColumnDrift, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """The rows of one table whose text columns match patterns."""

    rows: int
    scanned: tuple[str, ...]
    """Columns that were searched."""
    unscanned: Mapping[str, str]
    """Columns that may hold text and were not searched, with the reason."""
    hits: Mapping[tuple[str, str], int]
    """Number of rows by column and pattern; pairs without any are left out."""


Values: TypeAlias = Sequence[int | float | str | None]
"""The aggregates of one file that one figure of a table is merged from."""


@dataclass(frozen=True, slots=True)
class FileValues:
    """Aggregates of single files, which a validation computed."""

    aggregates: Sequence[str] = ()
    """The digest of each aggregate: its query, the types of its columns, and the releases of the libraries."""
    files: Mapping[str, Sequence[Values | None]] = field(default_factory=dict)
    """The values of each file in the order of `aggregates`, by the digest of its bytes; None where no row counts."""

    def of(self, aggregate: str) -> dict[str, Values | None]:
        """The values of one aggregate, by the digest of the file."""
        if aggregate not in self.aggregates:
            return {}
        index = self.aggregates.index(aggregate)
        return {digest: values[index] for digest, values in self.files.items() if index < len(values)}

    def keeping(self, earlier: FileValues) -> FileValues:
        """These values and those of other files, where both have the same aggregates and the others are no more.

        So two targets whose versions differ in some files find each other's values.
        """
        others = {digest: values for digest, values in earlier.files.items() if digest not in self.files}
        if earlier.aggregates != self.aggregates or len(others) > len(self.files):
            return self
        return FileValues(self.aggregates, {**others, **self.files})


NO_VALUES = FileValues()
MOST_PASSES = 500_000
"""Passes of files that are kept for a dataset: about 36 MB."""


@dataclass(frozen=True, slots=True)
class PassedProbes:
    """Which files passed which probes: digests only."""

    files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The digests of the files' bytes, by the digest of a probe with its settings and its library's release."""

    def has(self, probe: str, digest: str) -> bool:
        """Whether a file passed a probe."""
        return digest in self.files.get(probe, ())

    def keeping(self, earlier: PassedProbes) -> PassedProbes:
        """These passes and those of other files, as many again at most, and no more than `MOST_PASSES`."""
        left = MOST_PASSES
        merged: dict[str, frozenset[str]] = {}
        for probe, passes in self.files.items():
            # Sorted, so that the same passes are left out each time.
            more = sorted(earlier.files.get(probe, frozenset()) - passes)[: len(passes)]
            merged[probe] = frozenset([*sorted(passes), *more][:left])
            left -= len(merged[probe])
        return PassedProbes(merged)


NO_PASSES = PassedProbes()
