"""How the rows of two versions differ: counts and samples of each table.

    datasets/<dataset>/rows.changes/<new sha256>/<old sha256>.json    what the last comparison counted; replaced

Records have no samples: nothing of the data stays in the catalog but counts and names of columns. They decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.doors import Record
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec import Spec
from prefect_stagegate.spec.csv_dialect import TextReading

Kind: TypeAlias = Literal["added", "gone", "changed"]


@dataclass(frozen=True, slots=True)
class RowSample:
    """One row that differs. Values are text, cut, and masked in columns with personal data."""

    kind: Kind
    values: Mapping[str, str]
    """The row by column; of a changed row its key alone."""
    changes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of a changed row: the old and the new value of each column that changed."""


@dataclass(frozen=True, slots=True)
class TableRowChanges:
    """How the rows of one table differ. Rows of files that both versions have cancel out, and are not read."""

    table: str
    files: tuple[int, int] = (0, 0)
    """Files that were read, of the old and of the new version."""
    same_files: int = 0
    """Files that both versions have with the same rows, under the same path or another."""
    rows: tuple[int, int] = (0, 0)
    """Rows in the files that were read."""
    key: tuple[str, ...] = ()
    """The columns that rows were matched by; empty where whole rows were compared."""
    added: int = 0
    gone: int = 0
    changed: int | None = None
    """Rows whose key both versions have, with other values; None without a key."""
    columns: Mapping[str, int] = field(default_factory=dict)
    """Changed rows by column, without the columns that no row changed in."""
    notes: tuple[str, ...] = ()
    """What the counts leave out: columns of one version alone, other types."""
    samples: tuple[RowSample, ...] = ()

    @property
    def summary(self) -> str:
        """The counts in a few words."""
        changed = "" if self.changed is None else f", {self.changed:,} changed"
        return f"{self.added:,} added, {self.gone:,} gone{changed}"


@dataclass(frozen=True, slots=True)
class RowChanges:
    """How the rows of two versions differ."""

    dataset: str
    old: str
    new: str
    """The digests of both."""
    contract: str
    """The digest of what the tables' files are and how they are read."""
    tables: tuple[TableRowChanges, ...]
    who: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class TablePair:
    """The files of one table that differ between two versions."""

    table: str
    names: tuple[str, str]
    """What errors call the old and the new version."""
    old: Sequence[str]
    new: Sequence[str]
    """Paths in the dataset; `below` puts the versions' folders before them."""
    partitions: tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]]
    """The partition columns with their types: of all of the old version's files, of the new one's, of both."""
    reading: TextReading
    key: Sequence[str] = ()
    personal: Sequence[str] = ()

    def below(self, old: Path, new: Path) -> TablePair:
        """The same with paths on this node."""
        paths = [[str(view / path) for path in of_side] for view, of_side in ((old, self.old), (new, self.new))]
        return replace(self, old=paths[0], new=paths[1])


CHANGES = Record("rows.changes", RowChanges)


def contract_digest(spec: Spec) -> str:
    """The digest of what says which files a contract's tables have, and how they are read."""
    tables = spec.contract.tables
    return digest_of({name: [table.files, table.csv.model_dump(mode="json")] for name, table in tables.items()})


def read_changes(catalog: Catalog, spec: Spec, old: str, new: str) -> RowChanges | None:
    """What was counted of two versions under the contract of now; None where nobody compared them.

    Raises:
        CatalogError: The record can't be read.
    """
    changes = catalog.get(CHANGES, spec.dataset, new, old)
    is_about = changes and (changes.dataset, changes.old, changes.new) == (spec.dataset, old, new)
    return changes if changes and is_about and changes.contract == contract_digest(spec) else None
