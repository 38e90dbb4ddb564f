"""Profiles of tables: figures of each column, no rows. Pure records, which the catalog keeps as JSON.

A text column's values may be personal, so `counts` has their digests only. `names` shows the values of categories: of
columns with few values that are all frequent. Columns under a table's or a gate's `pii` are `withheld`: only their
values and nulls are counted, and their distinct values estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.kept_records import Kept, read_kept
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model.canonical import digest_of

ALGORITHM = 2
"""Raise it when figures change their meaning: then kept profiles are not compared any more."""
LEVELS = 200
"""Quantiles of a column: the middles of as many equal shares of its values."""
MANY_VALUES = 1000
"""Columns with more distinct values have no counts: each delivery of names or identifiers has new ones."""
Kind: TypeAlias = Literal["number", "time", "flag", "text", "other"]
"""`number`: figures. `time`: figures in microseconds since 1970, UTC. `flag`: true or false. `other`: counts only."""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """The figures of one column."""

    type: str
    """DuckDB's name of its type."""
    kind: Kind
    values: int = 0
    """Rows with a value; in a column of numbers or times, with a finite one."""
    nulls: int = 0
    nonfinite: int = 0
    """Rows with NaN or infinity."""
    distinct: int = 0
    """Distinct values: exact where there are counts, else within some percent."""
    least: int | float | None = None
    greatest: int | float | None = None
    mean: float | None = None
    deviation: float | None = None
    """The sample standard deviation; None below two values."""
    quantiles: tuple[float, ...] = ()
    """`LEVELS` quantiles, or none without values."""
    counts: Mapping[str, int] | None = None
    """Rows by value, exact; None for more than `MANY_VALUES` values. Text stands as its digest."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The text behind each digest in `counts`; empty unless the column holds categories."""
    sketch: str = ""
    """HyperLogLog registers, by which the distinct values of several files are counted together."""
    withheld: bool = False
    """Whether a gate says that it may hold personal data."""

    @property
    def rows(self) -> int:
        """All rows, with a value or without."""
        return self.values + self.nulls + self.nonfinite

    def value_counts(self) -> dict[str, int]:
        """The counts by what people may see; empty where values are many or may be personal."""
        if self.counts is None or (self.kind == "text" and not self.names):
            return {}
        return {self.names.get(value, value): count for value, count in self.counts.items()}


@dataclass(frozen=True, slots=True)
class TableProfile:
    """The figures of all columns of a table, or of some of its files."""

    rows: int = 0
    columns: Mapping[str, ColumnProfile] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    """The types of columns without figures: nested ones, and those beyond a bound."""
    order: tuple[str, ...] = ()
    """The names of `columns` as the files have them: JSON sorts them by name."""
    files: str = ""
    """`files_digest` of the files that it was computed from."""
    algorithm: int = ALGORITHM

    def ordered(self) -> dict[str, ColumnProfile]:
        """The columns as the files have them."""
        return {name: self.columns[name] for name in (*self.order, *self.columns) if name in self.columns}


def files_digest(digests: list[str]) -> str:
    """The digest that a profile names its files by, from the digest of each file's rows (`partitions.row_digests`)."""
    # Sorted, since the order of a table's files means nothing.
    return digest_of(sorted(digests))


@dataclass(frozen=True, slots=True)
class ProfilePart:
    """The profile of one file, or of several that were read together."""

    files: tuple[str, ...]
    """The digest of each file's rows."""
    profile: TableProfile

    @property
    def weight(self) -> int:
        """About how many numbers it takes to write it."""
        columns = self.profile.columns.values()
        return sum(len(column.quantiles) + 2 * len(column.counts or ()) + 100 for column in columns)


@dataclass(frozen=True, slots=True)
class ProfileParts:
    """What validations keep of a table, so that the next one reads new files only."""

    release: str = ""
    """The algorithm and the release of DuckDB. Another release may hash otherwise."""
    parts: tuple[ProfilePart, ...] = ()
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The values of categories by column and digest; parts have digests only."""


NO_PARTS = ProfileParts()

PROFILES = Record("stagegate.profiles", Kept[TableProfile])
"""The profile of a version's table."""
PARTS = Record("stagegate.parts", Kept[ProfileParts])
"""What the last validation profiled of a table's files."""


def kept_column_types(catalog: Catalog, dataset: str, digest: str, table: str) -> dict[str, str]:
    """The types of a version's columns; empty for a table without a profile that can be read."""
    try:
        profile = read_kept(catalog, PROFILES, dataset, table=table, digest=digest)
    except StagegateError:  # a validation reports it
        return {}
    return {name: column.type for name, column in profile.ordered().items()} | dict(profile.skipped) if profile else {}
