"""How much of this package one small job enters, and how large the package is. Lower a number once it is lower.

Whoever raises one writes the reason beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import prefect_stagegate

ROOT = Path(prefect_stagegate.__file__).parent.parent
ENTERED = {"files": 110, "functions": 724, "depth": 23}
"""By `stagegate stage` of three local files."""
LOADED = 366
"""Modules that the import of one task loads."""
LINES = 76_160
"""Of Python that the wheel has."""


def run(*words: str) -> str:
    return subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_a_small_staging_enters_few_files(tmp_path: Path) -> None:
    entered = json.loads(run("-m", "tests.support.entered", str(tmp_path)))
    assert entered.keys() == ENTERED.keys()
    # Threads that end sooner or later enter a few functions more or less.
    assert all(entered[name] <= ENTERED[name] * 1.01 for name in ENTERED), entered
    assert entered["files"] > 1


def test_one_task_loads_few_modules() -> None:
    count = "print(sum(name.split('.')[0] == 'prefect_stagegate' for name in sys.modules))"
    loaded = int(run("-c", f"import sys\nfrom prefect_stagegate.tasks import stage_dataset\n{count}"))
    assert 1 < loaded <= LOADED


def test_package_has_few_lines() -> None:
    files = [
        path for room in ("prefect_stagegate", "tasks", "flows", "validations") for path in (ROOT / room).rglob("*.py")
    ]
    lines = sum(len(path.read_text().splitlines()) for path in files)
    assert 10_000 < lines <= LINES
