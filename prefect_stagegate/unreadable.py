"""Records that could not be read, collected so that a listing goes on without them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from prefect_stagegate.errors import CacheError, CatalogError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One record of the catalog or of this node's cache that could not be read."""

    dataset: str
    """The dataset that it belongs to; empty when nobody can tell."""
    problem: str
    """Which record it is, and what is wrong with it."""
    hint: str
    """What to do about it."""

    def __str__(self) -> str:
        """As people read it: `nycflights: the catalog's record … can't be read: …. Restore it from a backup.`."""
        named = f"{self.dataset}: " if self.dataset else ""
        return f"{named}{self.problem}. {self.hint}" if self.hint else f"{named}{self.problem}"


class UnreadableRecords:
    """Collects what one listing could not read; each record once."""

    def __init__(self) -> None:
        self._found: dict[str, Unreadable] = {}

    @property
    def all(self) -> tuple[Unreadable, ...]:
        """All of them, in the order in which they were met."""
        return tuple(self._found.values())

    def add(self, error: CatalogError | CacheError, dataset: str = "") -> None:
        """Add the record that an error names."""
        self._found.setdefault(error.message, Unreadable(error.dataset or dataset, error.message, error.hint))

    def update(self, others: UnreadableRecords) -> None:
        """Add what others collected."""
        for record in others.all:
            self._found.setdefault(record.problem, record)

    def skip(self, dataset: str) -> _Skipping:
        """Leave the rest of a block out when a record of a dataset can't be read; a store that fails still raises."""
        return _Skipping(self, dataset)


def skipping(unreadable: UnreadableRecords | None, dataset: str) -> AbstractContextManager[object]:
    """Leave the rest of a block out when a record can't be read, and collect it; None lets its error through."""
    return nullcontext() if unreadable is None else unreadable.skip(dataset)


class _Skipping:
    def __init__(self, unreadable: UnreadableRecords, dataset: str) -> None:
        self._unreadable, self._dataset = unreadable, dataset

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, CatalogError | CacheError):
            return False
        self._unreadable.add(error, self._dataset)
        return True
