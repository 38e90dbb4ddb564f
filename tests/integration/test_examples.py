"""The examples work as they stand."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from prefect_stagegate.operations.address import read_spec

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    place = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert place
    assert place.loader
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


RUNNERS: dict[str, Callable[[], TaskRunner[Any]]] = {
    "threads": ThreadPoolTaskRunner,
    "processes": partial(ProcessPoolTaskRunner, max_workers=1),
    "dask": partial(DaskTaskRunner, cluster_kwargs={"n_workers": 1, "dashboard_address": None}),
}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("example", ["one_task_in_your_flow", "one_task_in_your_async_flow"])
def test_one_task_works_in_a_flow_that_has_nothing_else_of_ours_on_every_task_runner(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str, runner: str
) -> None:
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(tmp_path / "catalog"))
    (tmp_path / "delivery").mkdir()
    (tmp_path / "delivery/a.csv").write_text("a,b\n1,2\n")
    spec = tmp_path / "things.yaml"
    spec.write_text("stagegate: 1\ndataset: things\nsources: [{url: delivery}]\n")
    training = load(example).nightly_training.with_options(task_runner=RUNNERS[runner]())

    trained = training(str(spec))

    assert (asyncio.run(trained) if asyncio.iscoroutine(trained) else trained) == 8


def test_the_example_spec_loads_with_its_suite_and_its_gates() -> None:
    spec = read_spec(EXAMPLES / "nycflights.yaml")

    suite = spec.contract.tables["flights"].suite
    assert isinstance(suite, dict)
    assert {one["kwargs"]["column"] for one in suite["expectations"]} == {"year", "distance", "origin", "dep_delay"}
    pilot, production = (
        [requirement.check for requirement in spec.gate(target).requirements] for target in ("pilot", "production")
    )
    assert production == [*pilot, "digest", "freshness", "rollback", "approval"]
