"""Deliveries on a real Airflow: its API, scheduler, triggerer and people by their names."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Delivery
from tests.real.conftest import APPROVER, OPERATOR, SECOND_APPROVER, STRANGER, write_files, write_spec
from tests.real.running_airflow import ENDED, RunningAirflow, wait_for
from tests.real.slow_server import slow_server

ASKING = ("awaiting_input", "deferred")
"""States of a task that asks; the second before Airflow 3.3."""
FILES = 20
PAUSE_SECONDS = 6
RUN_SECONDS = 120
"""How long a run of a few tasks may take on a busy machine."""


@dataclass(frozen=True)
class Run:
    """A run of a DAG."""

    airflow: RunningAirflow
    dag: str
    run_id: str

    @property
    def path(self) -> str:
        return f"dags/{self.dag}/dagRuns/{self.run_id}"

    @property
    def state(self) -> str:
        return str(self.airflow.get(self.path, OPERATOR)["state"])

    def task(self, task: str) -> dict[str, Any]:
        instance: dict[str, Any] = self.airflow.get(f"{self.path}/taskInstances/{task}", OPERATOR)
        return instance

    def states(self) -> dict[str, str]:
        instances = self.airflow.get(f"{self.path}/taskInstances", OPERATOR)["task_instances"]
        return {instance["task_id"]: instance["state"] for instance in instances}

    def end(self) -> str:
        """Wait for the end of the run, and return its state."""
        wait_for(lambda: self.state in ENDED, RUN_SECONDS, f"the end of {self.run_id}")
        return self.state

    def result(self, task: str, key: str = "return_value") -> Any:
        path = f"{self.path}/taskInstances/{task}/xcomEntries/{key}?deserialize=true"
        return self.airflow.get(path, OPERATOR)["value"]

    def links(self, task: str) -> dict[str, str | None]:
        """What the links of the task's page lead to."""
        links: dict[str, str | None] = self.airflow.get(f"{self.path}/taskInstances/{task}/links", OPERATOR)[
            "extra_links"
        ]
        return links

    def log(self, task: str, attempt: int = 1) -> str:
        path = f"{self.path}/taskInstances/{task}/logs/{attempt}?full_content=true"
        return str(self.airflow.get(path, OPERATOR)["content"])

    def await_question(self, task: str = "approve") -> dict[str, Any]:
        """Wait until the approval is asked for, and nobody has answered."""

        def asked() -> Any:
            if self.state in ENDED:
                raise AssertionError(f"{self.run_id} ended with {self.states()}")
            return self.task(task)["state"] in ASKING

        wait_for(asked, RUN_SECONDS, "the approval to be asked for")
        # People take longer to answer than Airflow to notice that the task has paused.
        time.sleep(PAUSE_SECONDS)
        question: dict[str, Any] = self.airflow.get(f"{self.path}/taskInstances/{task}/-1/hitlDetails", OPERATOR)
        return question

    def await_next_question(self, reason: str) -> None:
        """Wait until the log has the reason for which an answer did not count, and the approval is asked for again."""
        wait_for(lambda: reason in self.log("approve"), RUN_SECONDS, reason)
        self.await_question()

    def answer(self, user: str, option: str, reason: str = "") -> None:
        """Answer by the API, as a page of Airflow does."""
        body = {"chosen_options": [option], "params_input": {"reason": reason}}
        path = f"{self.path}/taskInstances/approve/-1/hitlDetails"
        self.airflow.request("PATCH", path, user, body).raise_for_status()


def trigger(airflow: RunningAirflow, dag: str, user: str = OPERATOR, **parameters: str) -> Run:
    """Start a run."""
    wait_for(lambda: airflow.request("GET", f"dags/{dag}", OPERATOR).is_success, RUN_SECONDS, f"the DAG {dag}")
    body = {"logical_date": None, "conf": parameters}
    response = airflow.request("POST", f"dags/{dag}/dagRuns", user, body).raise_for_status()
    return Run(airflow, dag, response.json()["dag_run_id"])


def runs_of(airflow: RunningAirflow, dag: str) -> list[Run]:
    """The runs of a DAG, the newest first."""
    listed = airflow.get(f"dags/{dag}/dagRuns?order_by=-run_after", OPERATOR)["dag_runs"]
    return [Run(airflow, dag, run["dag_run_id"]) for run in listed]


@pytest.fixture(scope="module")
def nycflights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec of a small delivery."""
    folder = tmp_path_factory.mktemp("nycflights")
    write_files(folder / "data")
    return write_spec(folder, "nycflights", (folder / "data").as_uri())


def test_answer_of_a_named_user_promotes_and_starts_training(
    airflow: RunningAirflow, node: Delivery, nycflights: str
) -> None:
    run = trigger(airflow, "deliver", spec=nycflights)
    question = run.await_question()
    digest = run.result("stage")["digest"]
    assert digest in question["body"]
    assert question["subject"] == "Promote nycflights to production?"
    assert list(question["params"]) == ["reason"]
    links = run.links("approve")
    assert links["Version"] == f"https://data.example.org/datasets/nycflights/versions/{digest.removeprefix('sha256:')}"
    assert links["Report"] == f"https://reports.example.org/nycflights/production/{digest.removeprefix('sha256:')}.html"

    # Airflow lets her answer, but the policy does not name her.
    run.answer(STRANGER, "Approve")
    run.await_next_question(f"The answer of {STRANGER} doesn't count, so it is asked again: {STRANGER} can't answer")
    run.answer(APPROVER, "Approve", "seen the report")
    assert run.end() == "success"
    assert run.task("approve")["try_number"] == 1
    assert run.links("approve") == links

    attestation = node.command("history", "nycflights@production")[-1]["attestation"]
    (approval,) = attestation["predicate"]["stagegate"]["approvals"]
    assert (approval["approver"]["name"], approval["reason"]) == (APPROVER, "seen the report")
    training = wait_for(lambda: runs_of(airflow, "gated_training"), RUN_SECONDS, "the training to start")[0]
    assert training.end() == "success"
    trained = training.result("train")
    assert (trained["digest"], trained["files"]) == (digest, 3)
    assert training.links("train") == {"Version": links["Version"]}
    assert not node.leases()


def test_second_delivery_transfers_nothing_and_asks_nobody(
    airflow: RunningAirflow, node: Delivery, nycflights: str
) -> None:
    run = trigger(airflow, "deliver", spec=nycflights)
    assert run.end() == "success"
    staged = run.result("stage")
    assert (staged["new"], staged["bytes_fetched"]) == (False, 0)
    assert run.result("promote")["digest"] == staged["digest"]


def test_refused_delivery_fails_at_once_and_names_whose_turn(airflow: RunningAirflow, tmp_path: Path) -> None:
    write_files(tmp_path / "data")
    for file in (tmp_path / "data").iterdir():
        os.utime(file, (0, 0))
    run = trigger(airflow, "deliver", spec=write_spec(tmp_path, "stale", (tmp_path / "data").as_uri()))
    assert run.end() == "failed"
    assert run.task("check")["try_number"] == 1
    assert "It is the turn of data (dora@example.org) for freshness" in run.log("check")
    assert run.states()["promote"] == "upstream_failed"


def test_declined_delivery_stops_what_follows(airflow: RunningAirflow, node: Delivery, tmp_path: Path) -> None:
    write_files(tmp_path / "data")
    spec = write_spec(tmp_path, "declined", (tmp_path / "data").as_uri())
    run = trigger(airflow, "deliver", user=APPROVER, spec=spec)
    run.await_question()
    run.answer(APPROVER, "Approve")
    run.await_next_question("whoever triggered the run can't answer")
    run.answer(SECOND_APPROVER, "Reject", "March looks wrong")
    assert run.end() == "success"
    assert run.states() == {"stage": "success", "check": "success", "approve": "success", "promote": "skipped"}
    decision = node.command("check", "declined", "--gate", "production")
    assert decision["outcome"] == "refused"
    assert "ivan@example.org (declared) declined: March looks wrong" in decision["reason"]


def test_tasks_that_are_marked_end_their_commands(airflow: RunningAirflow, node: Delivery, tmp_path: Path) -> None:
    write_files(tmp_path / "data", count=FILES)
    with slow_server(tmp_path / "data", seconds=10) as server:
        run = trigger(airflow, "bring", spec=write_spec(tmp_path, "marked", server.url))
        wait_for(lambda: len(node.command("progress")) == 2, RUN_SECONDS, "both tasks to stage")
        for task, state in (("worker", "failed"), ("triggerer", "success")):
            airflow.request(
                "PATCH", f"{run.path}/taskInstances/{task}", OPERATOR, {"new_state": state}
            ).raise_for_status()
        wait_for(lambda: not node.command("progress"), 30, "the commands to end")
    assert node.leases() == []
    assert run.states() == {"worker": "failed", "triggerer": "success"}


def test_killed_parts_stage_nothing_twice(airflow: RunningAirflow, node: Delivery, tmp_path: Path) -> None:
    write_files(tmp_path / "data", count=FILES)
    with slow_server(tmp_path / "data") as server:
        run = trigger(airflow, "pilot_to_production", spec=write_spec(tmp_path, "slow", server.url))
        wait_for(lambda: len(server.sent) >= 4, RUN_SECONDS, "four files to be fetched")
        for part in ("triggerer", "scheduler"):
            airflow.kill(part)
        wait_for(lambda: not node.command("progress"), 10, "the command to end with its triggerer")
        assert not node.leases()
        before = dict(server.sent)
        airflow.start("scheduler", "triggerer")
        run.await_question("approval")
    assert len(before) < FILES == len(server.sent)
    again = {path for path, count in server.sent.items() if count > 1}
    # A file that was on its way when the command was ended has not arrived.
    assert len(again) <= 1, again
    staged = run.result("stage")
    assert staged["bytes_reused"] >= staged["bytes"] * (len(before) - 1) // FILES
    assert run.task("stage")["try_number"] == 1
    versions = [version for version in node.command("ls") if version["dataset"] == "slow"]
    assert [(version["files"], version["leases"]) for version in versions] == [(FILES, [])]
