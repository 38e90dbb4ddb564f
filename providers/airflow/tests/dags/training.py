"""A function that gets a version, and looks who holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_stagegate.hook import StagegateHook


def look(path: Path, digest: str) -> dict[str, Any]:
    """What the function sees of its version."""
    files = sorted(file.name for file in path.iterdir())
    held = [lease["digest"] for lease in StagegateHook().run("ls", "--held", "--json").document]
    return {"files": files, "digest": digest, "held": held}


with DAG("training", schedule=None, params={"version": "tiny@pilot"}) as training:

    @task.require_ready("{{ params.version }}", retries=2, retry_delay=0)
    def train(path: Path, digest: str) -> dict[str, Any]:
        return look(path, digest)

    train()

with DAG("digests", schedule=None, params={"digest": ""}) as digests:

    @task.require_ready("tiny@pilot", digest="{{ params.digest }}", retries=2, retry_delay=0)
    def train_on(digest: str) -> str:
        return digest

    train_on()

with DAG("failing", schedule=None) as failing:

    @task.require_ready("tiny@pilot")
    def fail() -> None:
        raise ValueError("the training diverged")

    fail()

with DAG("folds", schedule=None) as folds:

    @task.require_ready("tiny@pilot")
    def fold(number: int, path: Path) -> str:
        return f"{number} of {path.name}"

    fold.expand(number=[1, 2])
