"""What checks of rows look at, for `tests/contract/test_checks.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect_stagegate.gate.check_context import Fact
from prefect_stagegate.model.measures import Balance, Duplicates, Overlap, Scan, TableDrift
from prefect_stagegate.plugins.profile.measuring import measures
from tests.plugins.profile.figures import USUAL, Figures

NAMED: dict[str, dict[str, Any]] = {
    "duplicates": {"keys": {"flights": ["id"]}, "splits": {"train": "a/*", "test": "b/*"}, "by": ["id"]},
    "balance": {"labels": {"flights": "carrier"}, "fail": 0.01},
}
PRESENT: dict[Fact[Any, Any], Any] = {}
NOTHING = {
    "duplicates": Duplicates(0, 0),
    "shared_files": Overlap({}, {}),
    "shared_records": Overlap({}, {}),
    "balance": Balance(0, 0, 0),
    "drift": {"flights": TableDrift(0, 0, ())},
    "scan": Scan(0, (), {}, {}),
}


def failing(look: Callable[[str], Any]) -> dict[Fact[Any, Any], Any]:
    return {measures: Figures({name: look(f"measures.{name}") for name in USUAL})}


def nothing(_root: Path) -> dict[Fact[Any, Any], Any]:
    return {measures: Figures(NOTHING)}
