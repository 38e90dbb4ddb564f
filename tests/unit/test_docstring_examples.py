"""The examples in docstrings, run. Only modules that have some are imported, and by the process that runs them."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("prefect_stagegate", "tasks", "flows", "validations")


def _modules_with_examples(folder: str) -> list[str]:
    files = [file.relative_to(ROOT) for file in sorted((ROOT / folder).rglob("*.py")) if ">>> " in file.read_text()]
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name if folder == "prefect_stagegate" else f"prefect_stagegate.{name}" for name in names]


@pytest.mark.parametrize("module", [module for folder in FOLDERS for module in _modules_with_examples(folder)])
def test_examples_of_docstrings_hold(module: str) -> None:
    tried = doctest.testmod(import_module(module))
    assert tried.attempted
    assert not tried.failed
