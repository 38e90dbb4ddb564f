"""Measures of a version's rows for tests of checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prefect_stagegate.model.measures import Balance, ColumnDrift, Duplicates, Overlap, Scan, TableDrift

DRIFT = tuple(ColumnDrift("flights", name, 0.01, "wasserstein") for name in ("a", "b"))
USUAL: Mapping[str, Callable[..., Any]] = {
    "duplicates": lambda *_: Duplicates(7, 0),
    "shared_files": lambda splits: Overlap(dict.fromkeys(splits, 2), {}),
    "shared_records": lambda splits, _: Overlap(dict.fromkeys(splits, 7), {}),
    "balance": lambda *_: Balance(100, 0, 2, "b", 49),
    "drift": lambda *_: {"flights": TableDrift(5000, 4000, DRIFT)},
    "scan": lambda *_: Scan(7, ("carrier",), {}, {}),
    "outside_tables": lambda: 0,
}


@dataclass(frozen=True)
class Figures:
    """The methods of `VersionMeasures` for faultless data.

    A test gives the answers that differ: a value, an error to raise, or a function.
    """

    answers: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The method of a name."""
        if name not in USUAL:
            raise AttributeError(name)
        return partial(self._answer, name)

    def _answer(self, name: str, *arguments: Any) -> Any:
        answer = self.answers.get(name, USUAL[name])
        if isinstance(answer, BaseException):
            raise answer
        return answer(*arguments) if callable(answer) else answer
