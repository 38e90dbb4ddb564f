"""The examples work as they stand."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from prefect_stagegate import doors
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.readmes import EXAMPLES, unlike


def load(name: str) -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert module_spec
    assert module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


RUNNERS: dict[str, Callable[[], TaskRunner[Any]]] = {
    "threads": ThreadPoolTaskRunner,
    "processes": partial(ProcessPoolTaskRunner, max_workers=1),
    "dask": partial(DaskTaskRunner, cluster_kwargs={"n_workers": 1, "dashboard_address": None}),
}


@pytest.mark.parametrize(
    "runner", ["threads", *(pytest.param(name, marks=pytest.mark.system) for name in ("processes", "dask"))]
)
@pytest.mark.parametrize("example", ["one_task_in_your_flow", "one_task_in_your_async_flow"])
def test_single_task_works_in_a_foreign_flow_on_each_runner(
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
    assert {expectation["kwargs"]["column"] for expectation in suite["expectations"]} == {
        "year",
        "distance",
        "origin",
        "dep_delay",
    }
    pilot, production = (
        [requirement.check for requirement in spec.gate(target).requirements] for target in ("pilot", "production")
    )
    assert production == [*pilot, "digest", "freshness", "rollback", "approval"]


def test_own_source_passes_the_contract_in_60_lines() -> None:
    example = EXAMPLES / "custom_source.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", str(example)]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 14
    lines = [line.strip() for line in example.read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith(("#", '"""'))]) <= 60


def test_a_source_of_ones_own_is_staged_by_a_spec(tmp_path: Path) -> None:
    before = dict(doors.core_sources())
    doors.register(load("custom_source").SQLAR)
    try:
        with closing(sqlite3.connect(tmp_path / "scans.sqlar", isolation_level=None)) as archive:
            archive.execute("CREATE TABLE sqlar (name TEXT PRIMARY KEY, mode INT, mtime INT, sz INT, data BLOB)")
            packed = zlib.compress(b"x" * 1000)
            archive.execute("INSERT INTO sqlar VALUES ('2013/a.bin', 33188, 1370000000, 1000, ?)", (packed,))
        spec = {"stagegate": 1, "dataset": "scans", "sources": [{"url": f"sqlar://{tmp_path}/scans.sqlar/"}]}
        workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
        version = stage(workspace, read_spec(spec))
        assert (version.path / "2013/a.bin").read_bytes() == b"x" * 1000
        assert stage(workspace, read_spec(spec)).bytes_fetched == 0
    finally:
        doors.core_sources().clear()
        doors.core_sources().update(before)


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory, seaweedfs: SeaweedFS) -> dict[str, str]:
    """The settings of who did what the flights' README says; `unlike` has the lines that were printed otherwise."""
    seaweedfs.bucket("nyc")
    settings = {
        "AWS_ENDPOINT_URL": seaweedfs.endpoint_url,
        "AWS_ACCESS_KEY_ID": seaweedfs.key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret,
        "STAGEGATE_CATALOG": "s3://nyc/catalog",
    }
    folder = tmp_path_factory.mktemp("flights")
    lines = unlike("s3_to_pandas", folder, **settings)
    # The owner corrects December: no other node could fetch what production names, while the bucket lacks it.
    subprocess.run([sys.executable, folder / "upload.py"], env={**os.environ, **settings}, check=True)
    return {**settings, "unlike": "\n".join(lines)}


@pytest.mark.timeout(300)
def test_parquet_on_s3_reaches_a_pandas_job(flights: dict[str, str]) -> None:
    assert flights["unlike"] == ""


@pytest.mark.timeout(300)
def test_kubernetes_job_counts_what_production_accepted(flights: dict[str, str], tmp_path: Path) -> None:
    """Its containers run as processes, one after the other, with folders in place of the pod's volumes."""
    _, config, job = yaml.safe_load_all((EXAMPLES / "kubernetes/job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    volumes = {mount["mountPath"]: tmp_path / mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    for folder in volumes.values():
        folder.mkdir()
    (volumes["/job"] / "job.py").write_text(config["data"]["job.py"])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {**os.environ, **flights, "STAGEGATE_CACHE": str(volumes["/cache"]), "PATH": path}
    for container in (*pod["initContainers"], *pod["containers"]):
        command = [word.replace("/job/", f"{volumes['/job']}/") for word in container["command"]]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
    shown = "".join(done.stdout.splitlines(keepends=True)[:3])
    assert f"```\n{shown}```\n" in (EXAMPLES / "kubernetes/README.md").read_text()


def test_readmes_are_short() -> None:
    readmes = list(EXAMPLES.glob("*/README.md"))
    assert len(readmes) == 7
    # One tells a story of four versions.
    assert {readme: lines for readme in readmes if (lines := len(readme.read_text().splitlines())) > 75} == {}
