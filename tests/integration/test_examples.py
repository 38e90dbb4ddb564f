"""The examples work as they stand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prefect_stagegate.operations.address import read_spec

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    place = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert place
    assert place.loader
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_one_task_works_in_a_flow_that_has_nothing_else_of_ours(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(tmp_path / "catalog"))
    (tmp_path / "delivery").mkdir()
    (tmp_path / "delivery/a.csv").write_text("a,b\n1,2\n")
    spec = tmp_path / "things.yaml"
    spec.write_text("stagegate: 1\ndataset: things\nsources: [{url: delivery}]\n")

    example: Any = load("one_task_in_your_flow")

    assert example.nightly_training(str(spec)) == 8


def test_the_example_spec_loads_with_its_suite_and_its_gates() -> None:
    spec = read_spec(EXAMPLES / "nycflights.yaml")

    suite = spec.contract.tables["flights"].suite
    assert isinstance(suite, dict)
    assert {one["kwargs"]["column"] for one in suite["expectations"]} == {"year", "distance", "origin", "dep_delay"}
    pilot, production = (
        [requirement.check for requirement in spec.gate(target).requirements] for target in ("pilot", "production")
    )
    assert production == [*pilot, "digest", "freshness", "rollback", "approval"]
