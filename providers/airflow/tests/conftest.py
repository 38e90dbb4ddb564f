"""An Airflow with a database of its own, the real `stagegate` command, and a small delivery."""

from __future__ import annotations

import atexit
import json
import os
import runpy
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.endless import endless_source

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "airflow_provider_stagegate/example_dags"
PROJECT = TESTS.parents[2] / "examples/airflow"
HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
DAGS = HOME / "dags"
# Airflow reads these when it is imported, and `DAG.test` wants its DAG's file in the folder of DAGs.
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
}
# The tests stage a few bytes, however full this machine's disk is.
FREE_FLOOR = {"STAGEGATE_FREE_FLOOR": "0%"}
PAGES = {"STAGEGATE_PAGES_URL": "https://data.example.org/", "STAGEGATE_REPORTS_URL": "https://reports.example.org"}
"""Where the links of a task's page lead."""

APPROVER = "platform@example.org"
SPEC = """
stagegate: 1
dataset: tiny
owners:
  {{data: data-eng@example.org, ai: ml@example.org, infra: platform@example.org, governance: legal@example.org}}
sources: [{{url: "{source}"}}]
gates:
  pilot: {{require: [nonempty, cache_fit], watch: {{checks: [nonempty]}}}}
  fresh: {{require: [{{freshness: {{warn: 1h, fail: 2h, severity: blocking}}}}]}}
  production: {{extends: pilot, require: [digest, {{approval: {{count: 1, from: [infra]}}}}]}}
"""


@dataclass(frozen=True)
class Delivery:
    """A spec of a dataset `tiny`, and the places of one node."""

    folder: Path

    @property
    def spec(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def connection(self) -> dict[str, Any]:
        places = {"cache": str(self.folder / "cache"), "catalog": str(self.folder / "catalog")}
        return {"conn_type": "stagegate", "host": stagegate(), "login": "airflow", "extra": places}

    def command(self, *arguments: str, identity: str = "airflow") -> Any:
        """What a command prints as JSON, whatever its exit code."""
        extra = self.connection["extra"]
        places = ["--cache", extra["cache"], "--catalog", extra["catalog"], "--identity", identity]
        run = subprocess.run([stagegate(), *arguments, *places, "--json"], capture_output=True, check=False)
        assert run.stdout, f"{arguments} ended with {run.returncode}: {run.stderr.decode()}"
        return json.loads(run.stdout)

    def promote_to_pilot(self) -> dict[str, Any]:
        """Stage, and promote to the pilot; returns the version."""
        version: dict[str, Any] = self.command("stage", str(self.spec))
        decision = self.command("check", "tiny", "--gate", "pilot")
        move = self.command("promote", "tiny", "--to", "pilot")
        assert move.get("ref") == "pilot", (version, decision, move)
        return version

    def leases(self) -> list[dict[str, Any]]:
        """The live leases of the cache; none while there is no cache."""
        held = self.command("ls", "--held")
        return [lease for lease in held if lease["kind"] != "pin"] if isinstance(held, list) else []


def stagegate() -> str:
    """The path of the command under test."""
    command = os.environ.get("TESTED_STAGEGATE") or shutil.which("stagegate")
    assert command, "TESTED_STAGEGATE must name the stagegate command"
    return command


@pytest.fixture
def delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Delivery:
    """Three files and their spec; the default connection works on them."""
    delivery = Delivery(tmp_path)
    delivery.data.mkdir()
    for number in range(3):
        (delivery.data / f"{number}.csv").write_text(f"day,delay\n{number},5\n")
    delivery.spec.write_text(SPEC.format(source=delivery.data.as_uri()))
    for name, value in {"AIRFLOW_CONN_STAGEGATE_DEFAULT": json.dumps(delivery.connection), **FREE_FLOOR}.items():
        monkeypatch.setenv(name, value)
    return delivery


@pytest.fixture(autouse=True)
def _prompt_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DAG.test` has no executor that a trigger has to wait for."""
    monkeypatch.setattr("airflow_provider_stagegate.triggers.SETTLE_SECONDS", 0.0)


@pytest.fixture
def endless(delivery: Delivery) -> Iterator[Delivery]:
    """A delivery whose only object never ends."""
    with endless_source() as source:
        delivery.spec.write_text(SPEC.format(source=source))
        yield delivery


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Airflow's database, and links to all DAGs in its folder."""
    from airflow.utils.db import initdb

    DAGS.mkdir()
    for file in (*(TESTS / "dags").glob("*.py"), *EXAMPLES.glob("[!_]*.py")):
        (DAGS / file.name).symlink_to(file)
    shutil.copytree(PROJECT, DAGS / "airlines")
    initdb()


RunDag = Callable[..., "Finished"]


@dataclass(frozen=True)
class Finished:
    """A run of a DAG that has ended."""

    run: DagRun

    @property
    def tasks(self) -> dict[str, TaskInstance]:
        return {task.task_id: task for task in self.run.get_task_instances()}

    @property
    def states(self) -> dict[str, str]:
        return {name: str(task.state) for name, task in self.tasks.items()}

    def result(self, task: str) -> Any:
        return self.tasks[task].xcom_pull(task_ids=task)


@pytest.fixture
def run_dag(airflow_database: None) -> RunDag:
    """Runs a DAG of a file by `DAG.test`, with parameters."""

    def run(file: str, dag: str, **parameters: Any) -> Finished:
        dags = runpy.run_path(str(DAGS / f"{file}.py"))
        return Finished(dags[dag].test(run_conf=parameters))

    return run
