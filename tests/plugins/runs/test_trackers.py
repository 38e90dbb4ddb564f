"""MLflow on SQLite and Weights & Biases offline, in an environment of their own: `make test-trackers`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenario import Scenario

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".trackers/bin/python"

MLFLOW = """
import json, os, sys
import mlflow
from mlflow import MlflowClient
from prefect_stagegate import open_dataset

with mlflow.start_run(run_name="resnet") as run:
    with open_dataset("things@production", wait={wait}) as data:
        {inside}
client = MlflowClient()
read = client.get_run(run.info.run_id).inputs.dataset_inputs
source = mlflow.data.get_source(read[0])
print(json.dumps({{
    "run": run.info.run_id,
    "digest": data.digest,
    "inputs": [[i.dataset.name, i.dataset.digest, i.dataset.source_type] for i in read],
    "tags": {{tag.key: tag.value for tag in read[0].tags}},
    "folder": sorted(path.name for path in source.load().iterdir()),
    "resolved": type(mlflow.data.dataset_source_registry.resolve_dataset_source(data.url)).__name__,
}}))
"""
REGISTER = """
        client = MlflowClient()
        client.create_registered_model("delays")
        client.create_model_version("delays", source="file:///models/delays", run_id=run.info.run_id)
"""
WANDB = """
import json
import wandb
from prefect_stagegate import open_dataset

with wandb.init(project="delays", dir=".") as run:
    with open_dataset("things@production") as data:
        print(json.dumps({"run": run.id, "log": data.log(), "url": data.url}))
"""


class Training(Scenario):
    """A dataset that production accepted twice, and programs that train on it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, gates={"production": {"require": ["license"]}})
        for text in ("one", "two"):
            self.deliver(text)
            self.promote()

    def start(self, code: str, **settings: str) -> subprocess.Popen[str]:
        environment = {**os.environ, **self.environment(STAGEGATE_NODE="gpu-7"), "PYTHONPATH": str(ROOT)}
        places = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db", "WANDB_MODE": "offline"}
        return subprocess.Popen(
            [PYTHON, "-c", code],
            cwd=self.folder,
            env={**environment, **places, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, code: str, **settings: str) -> dict[str, Any]:
        """What a program prints as its last line."""
        output, errors = self.start(code, **settings).communicate(timeout=200)
        assert "Traceback" not in errors, errors
        assert "Could not" not in errors, errors
        printed: dict[str, Any] = json.loads(output.splitlines()[-1])
        return printed


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


@pytest.fixture
def listed(training: Training, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """What `stagegate runs` lists."""

    def runs() -> list[dict[str, Any]]:
        capsys.readouterr()
        assert training.run("runs", "things@production", "--json") == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    return runs


@pytest.mark.parametrize("wait", [True, False])
def test_run_of_mlflow_has_the_version_as_input(training: Training, listed: Any, wait: bool) -> None:
    trained = training.train(MLFLOW.format(wait=wait, inside="pass"))
    ((name, digest, kind),), tags = trained["inputs"], trained["tags"]
    assert (name, kind) == ("things", "stagegate")
    assert trained["digest"] == training.head("production")
    assert digest == trained["digest"][: len(digest)]
    assert len(digest) == 36
    assert tags["stagegate.digest"] == trained["digest"]
    assert tags.keys() == {f"stagegate.{key}" for key in ("dataset", "ref", "digest", "decision", "policy")}
    assert (trained["folder"], trained["resolved"]) == (["data.csv"], "StagegateDatasetSource")
    (found,) = listed()
    assert (found["run"]["id"], found["run"]["name"], found["node"]) == (trained["run"], "resnet", "gpu-7")
    assert found["ended"]


def test_withdrawal_names_registered_models(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    trained = training.train(MLFLOW.format(wait=True, inside=REGISTER))
    capsys.readouterr()
    assert training.run("rollback", "things@production", "--reason", "loss went up", "--json") == 0
    users = json.loads(capsys.readouterr().out)["users"]
    assert users["models"] == ["delays/1"]
    assert [found["run"]["id"] for found in users["runs"]] == [trained["run"]]


def test_killed_run_of_mlflow_is_listed(training: Training, listed: Any) -> None:
    process = training.start(
        MLFLOW.format(wait=True, inside="print('open', flush=True); __import__('time').sleep(200)")
    )
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    (found,) = listed()
    assert (found["run"]["tool"], found["run"]["name"], found["ended"]) == ("mlflow", "resnet", "")


def test_credentials_of_a_tracker_are_not_recorded(training: Training, listed: Any) -> None:
    """A tracker that is not there: the run goes on, and its name comes from the environment."""
    code = "from prefect_stagegate import open_dataset\nwith open_dataset('things@production'): print('{}')"
    training.train(code, MLFLOW_RUN_ID="3f", MLFLOW_TRACKING_URI="https://ada:hunter2-hunter2@127.0.0.1:1/?token=x")
    assert listed()[0]["run"]["place"] == "https://127.0.0.1:1/"
    assert not [path for path in training.folder.rglob("*.json") if b"hunter2" in path.read_bytes()]


def test_tracker_that_fails_costs_a_warning(training: Training) -> None:
    """Its server goes away between the run's start and the opening."""
    code = MLFLOW.partition("client = MlflowClient()\nread")[0].format(
        wait=True,
        inside="print((data.path / 'data.csv').read_text())",
    )
    gone = (
        "    os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES'] = '0'\n    mlflow.set_tracking_uri('http://127.0.0.1:1')\n"
    )
    started = time.monotonic()
    process = training.start(code.replace("    with open_dataset", f"{gone}    with open_dataset"))
    output, errors = process.communicate(timeout=200)
    assert output == "two\n", errors
    assert "Could not log a version to mlflow" in errors
    assert time.monotonic() - started < 100


def test_run_of_wandb_has_the_digest_in_its_files(training: Training, listed: Any) -> None:
    trained = training.train(WANDB)
    assert trained["log"] == [f"wandb:{trained['run']}"]
    (log,) = training.folder.rglob("*.wandb")
    assert training.head("production").encode() in log.read_bytes()
    assert [found["run"]["id"] for found in listed()] == [trained["run"]]
