"""Links from a task's page in Airflow to its version's page and to the report of its gate."""

from __future__ import annotations

import json
import os

import pytest

from tests.conftest import APPROVER, PAGES, Delivery, Finished, RunDag


@pytest.fixture(autouse=True)
def _pages(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = delivery.connection
    connection["extra"]["environment"] = PAGES
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", json.dumps(connection))


def links(finished: Finished, task: str) -> dict[str, str]:
    """The links of a task's page that lead anywhere."""
    found = {
        name: finished.tasks[task].xcom_pull(task_ids=task, key=f"_link_{name}Link") for name in ("Version", "Report")
    }
    return {name: address for name, address in found.items() if address}


def version_page(digest: str) -> str:
    return f"https://data.example.org/datasets/tiny/versions/{digest.removeprefix('sha256:')}"


def report_page(digest: str, gate: str) -> str:
    return f"https://reports.example.org/tiny/{gate}/{digest.removeprefix('sha256:')}.html"


@pytest.mark.parametrize(("gate", "state"), [("pilot", "success"), ("fresh", "failed")])
def test_check_links_to_its_version_and_report(gate: str, state: str, delivery: Delivery, run_dag: RunDag) -> None:
    for file in delivery.data.iterdir():
        os.utime(file, (0, 0))
    digest = delivery.command("stage", str(delivery.spec))["digest"]
    finished = run_dag("jobs", "checking", gate=gate)
    assert finished.states == {"check": state}
    assert links(finished, "check") == {"Version": version_page(digest), "Report": report_page(digest, gate)}


def test_approval_links_to_what_it_asks_about(delivery: Delivery, run_dag: RunDag) -> None:
    """A real Airflow asks people in `tests/real`; here the answer was given before."""
    digest = delivery.promote_to_pilot()["digest"]
    delivery.command("check", "tiny", "--gate", "production")
    delivery.command("approve", "tiny", "--to", "production", identity=APPROVER)
    finished = run_dag("pilot_to_production", "dag", spec=str(delivery.spec))
    assert links(finished, "approval") == {"Version": version_page(digest), "Report": report_page(digest, "production")}


def test_function_links_to_the_version_that_it_got(delivery: Delivery, run_dag: RunDag) -> None:
    digest = delivery.promote_to_pilot()["digest"]
    assert links(run_dag("training", "training"), "train") == {"Version": version_page(digest)}


def test_function_that_fails_links_to_its_version(delivery: Delivery, run_dag: RunDag) -> None:
    digest = delivery.promote_to_pilot()["digest"]
    assert links(run_dag("training", "failing"), "fail") == {"Version": version_page(digest)}
