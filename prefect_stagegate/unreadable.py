"""Collecting records that can't be read, so that a listing goes on without them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from prefect_stagegate.errors import CacheError, CatalogError, StagegateError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One record of the catalog or of this node's cache that could not be read."""

    dataset: str
    """The dataset that it belongs to; empty when that is unknown."""
    problem: str
    """Which record it is, and what is wrong with it."""
    hint: str
    """What to do about it."""

    def __str__(self) -> str:
        """As people read it: `nycflights: the catalog's record … can't be read: …. Restore it from a backup.`."""
        prefix = f"{self.dataset}: " if self.dataset else ""
        return f"{prefix}{self.problem}. {self.hint}" if self.hint else f"{prefix}{self.problem}"


class UnreadableRecords:
    """Collects the records that one listing could not read, each once."""

    def __init__(self) -> None:
        self._records: dict[str, Unreadable] = {}

    @property
    def all(self) -> tuple[Unreadable, ...]:
        """All of them, in the order of their errors."""
        return tuple(self._records.values())

    def add(self, error: StagegateError, dataset: str = "") -> None:
        """Add the record that an error names."""
        self._records.setdefault(error.message, Unreadable(error.dataset or dataset, error.message, error.hint))

    def update(self, others: UnreadableRecords) -> None:
        """Add the records of another collection."""
        for record in others.all:
            self._records.setdefault(record.problem, record)

    def skip(self, dataset: str) -> _Skipping:
        """Skip the rest of a block when a record of a dataset can't be read; a store that fails still raises."""
        return _Skipping(self, dataset)


def skipping(unreadable: UnreadableRecords | None, dataset: str) -> AbstractContextManager[object]:
    """Skip the rest of a block when a record can't be read, and collect the record. With None, the error is raised."""
    return nullcontext() if unreadable is None else _Skipping(unreadable, dataset)


@dataclass(slots=True)
class _Skipping(AbstractContextManager[object]):
    unreadable: UnreadableRecords
    dataset: str

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, CatalogError | CacheError):
            return False
        self.unreadable.add(error, self.dataset)
        return True
