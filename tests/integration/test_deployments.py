"""`deployments/prefect.yaml` on a real Prefect server: it deploys as it is, and its triggers run what they say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.flows import stage
from prefect_stagegate.model import Address
from prefect_stagegate.operations.workspace import open_workspace

FILE = Path(__file__).parents[2] / "deployments/prefect.yaml"


def ask(path: str, **body: Any) -> Any:
    answer = httpx.post(f"{PREFECT_API_URL.value()}{path}", json=body, timeout=10)
    return answer.raise_for_status().json()


def eventually(look: Callable[[], Any], seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def prefect(*words: str, folder: Path, **environment: str) -> str:
    """Run the `prefect` command as a platform engineer would, against the tests' server."""
    own = {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("prefect"), *words],
        env={**os.environ, **own, **environment},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def deployed(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The deployments by name and flow, after the file was deployed as its header says."""
    folder = tmp_path_factory.mktemp("platform")
    for pool in ("pilot", "production"):
        ask("/work_pools/", name=pool, type="process")
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(FILE), folder=folder)
    flows = {one["id"]: one["name"] for one in ask("/flows/filter")}
    ours = [one for one in ask("/deployments/filter") if "stagegate" in one["tags"]]
    return {f"{flows[one['flow_id']]}/{one['name']}": one for one in ours}


def test_every_deployment_of_the_file_is_there_in_its_pool(deployed: dict[str, Any]) -> None:
    assert {name: one["work_pool_name"] for name, one in deployed.items()} == {
        "stagegate-stage/nycflights": "pilot",
        "stagegate-pilot-to-production/nycflights": "pilot",
        "stagegate-refresh/nycflights": "production",
        "stagegate-sweep/node": "production",
    }
    assert len(yaml.safe_load(FILE.read_text())["deployments"]) == len(deployed)


def test_staging_runs_by_the_clock_of_a_place_and_never_twice_at_once(deployed: dict[str, Any]) -> None:
    stage = deployed["stagegate-stage/nycflights"]

    (schedule,) = stage["schedules"]
    assert (schedule["active"], schedule["schedule"]["timezone"]) == (True, "Europe/Berlin")
    assert schedule["schedule"]["cron"] == "7 * * * *"
    assert stage["global_concurrency_limit"]["limit"] == 1
    assert stage["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert stage["parameters"] == {"spec_or_ref": "/etc/stagegate/nycflights.yaml"}


def test_no_worker_fetches_code(deployed: dict[str, Any]) -> None:
    assert [one["pull_steps"] or [] for one in deployed.values()] == [[]] * len(deployed)
    assert all(one["entrypoint"].startswith("prefect_stagegate.flows.") for one in deployed.values())


def test_a_new_version_is_promoted_by_a_worker_and_then_brought_to_production(
    deployed: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/a.csv").write_text("a,b\n1,2\n")
    gates = {"pilot": {"require": ["runbook"]}, "production": {"extends": "pilot", "require": ["digest"]}}
    sources = [{"url": str(tmp_path / "nas")}]
    named = {"stagegate": 1, "dataset": "nycflights", "runbook": "https://wiki.example.org/"}
    on: dict[str, Any] = {"cache": tmp_path / "cache", "catalog": tmp_path / "catalog"}

    version = stage({**named, "sources": sources, "gates": gates}, **on)
    asked = eventually(lambda: runs_of(deployed["stagegate-pilot-to-production/nycflights"]))
    assert [run["parameters"] for run in asked] == [{"version": version.address}]

    places = {"STAGEGATE_CACHE": str(on["cache"]), "STAGEGATE_CATALOG": str(on["catalog"])}
    log = prefect("worker", "start", "--pool", "pilot", "--run-once", folder=tmp_path, **places)

    catalog = open_workspace(**on).catalog
    assert catalog.resolve(Address("nycflights", "production")) == version.digest, log
    (brought,) = eventually(lambda: runs_of(deployed["stagegate-refresh/nycflights"]))
    assert brought["parameters"] == {"datasets": ["nycflights@production"]}


def runs_of(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    found = ask("/flow_runs/filter", deployments={"id": {"any_": [deployment["id"]]}})
    return [run for run in found if not run["auto_scheduled"]]
