"""One Airflow for all tests of this folder, with a node and people who answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import EXAMPLES, FREE_FLOOR, PAGES, Delivery
from tests.real.running_airflow import RunningAirflow, running_airflow

OPERATOR = "olga@example.org"
"""Triggers runs."""
APPROVER, SECOND_APPROVER = "ines@example.org", "ivan@example.org"
"""The addresses of `infra` in the specs."""
STRANGER = "dora@example.org"
"""Owns the data, and is nobody's approver."""


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    """The cache and the catalog that Airflow's connection names."""
    return Delivery(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory, node: Delivery) -> Iterator[RunningAirflow]:
    """A real Airflow, with the DAGs of this folder and two examples."""
    dags = tmp_path_factory.mktemp("dags")
    examples = [EXAMPLES / f"{name}.py" for name in ("pilot_to_production", "gated_training")]
    for file in (*(Path(__file__).parent / "dags").glob("*.py"), *examples):
        (dags / file.name).symlink_to(file)
    environment = {"AIRFLOW_CONN_STAGEGATE_DEFAULT": json.dumps(node.connection), **FREE_FLOOR, **PAGES}
    home = tmp_path_factory.mktemp("airflow")
    with running_airflow(home, dags, (OPERATOR, APPROVER, SECOND_APPROVER, STRANGER), environment) as airflow:
        yield airflow


SPEC = """
stagegate: 1
dataset: {dataset}
owners: {{data: dora@example.org, infra: "ines@example.org, ivan@example.org", governance: legal@example.org}}
sources: [{{url: "{source}"}}]
gates:
  pilot: {{require: [nonempty]}}
  production:
    extends: pilot
    require:
      - {{freshness: {{warn: 1h, fail: 2h, severity: blocking}}}}
      - {{approval: {{count: 1, from: [infra]}}}}
"""


def write_spec(folder: Path, dataset: str, source: str) -> str:
    """Write a spec whose `production` wants fresh files, and an approval by `infra`; returns its path."""
    spec = folder / f"{dataset}.yaml"
    spec.write_text(SPEC.format(dataset=dataset, source=source))
    return str(spec)


def write_files(folder: Path, count: int = 3) -> None:
    """Write a few files that differ."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.csv").write_text(f"day,delay\n{number},5\n")
