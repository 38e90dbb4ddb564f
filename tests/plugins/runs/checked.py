"""What the check `metrics` looks at, for `tests/contract/test_checks.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect_stagegate.plugins.runs.metrics.metrics_check import Comparison, compared
from prefect_stagegate.plugins.runs.metrics.run_figures import RunFigures

NAMED: dict[str, dict[str, Any]] = {
    "metrics": {"url": "http://127.0.0.1:1", "compare": {"val/auc": {"min": 0.8}}, "samples": {"least": 10}}
}
PRESENT: dict[Any, Any] = {}


def failing(look: Callable[[str], Any]) -> dict[Any, Any]:
    return {compared: look("compared")}


def nothing(_root: Path) -> dict[Any, Any]:
    return {compared: Comparison(RunFigures("", None, {}), {})}
