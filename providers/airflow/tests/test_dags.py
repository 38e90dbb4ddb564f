"""DAGs of the provider's operators, run by `DAG.test` with the real command on real files."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from airflow.models.asset import AssetEvent
from airflow.utils.session import create_session

from tests.conftest import APPROVER, DAGS, Delivery, RunDag, stagegate


def digest_of_last_event() -> str:
    with create_session() as session:
        event = session.query(AssetEvent).order_by(AssetEvent.id.desc()).first()
        assert event is not None
        return str(event.extra["digest"])


def test_second_staging_transfers_nothing(delivery: Delivery, run_dag: RunDag) -> None:
    first = run_dag("jobs", "staging", source=str(delivery.spec)).result("stage")
    second = run_dag("jobs", "staging", source=str(delivery.spec)).result("stage")
    assert (first["new"], first["files"], first["bytes_fetched"]) == (True, 3, first["bytes"])
    assert (second["new"], second["bytes_fetched"], second["digest"]) == (False, 0, first["digest"])
    assert digest_of_last_event() == first["digest"]


def test_watched_target_is_asked_when_it_is_due(delivery: Delivery, run_dag: RunDag) -> None:
    delivery.promote_to_pilot()
    (round_,) = run_dag("jobs", "watching").result("watch")
    assert (round_["target"], round_["outcome"], round_["action"]) == ("pilot", "pass", "none")
    assert run_dag("jobs", "watching").result("watch") == []


@pytest.mark.parametrize("dag", ["changing", "resumed"])
def test_unchanged_version_is_skipped_where_that_is_asked_for(dag: str, delivery: Delivery, run_dag: RunDag) -> None:
    delivery.promote_to_pilot()
    finished = run_dag("jobs", dag, source=str(delivery.spec))
    assert finished.states == {"stage": "skipped", "promote": "skipped"}


DYING = """#!/bin/sh
{command} "$@"
code=$?
case $1 in stage|promote) [ -e {folder}/$1-died ] || {{ touch {folder}/$1-died; exit 143; }} ;; esac
exit $code
"""
TWICE = """#!/bin/sh
case $1 in stage|promote) {command} "$@" >/dev/null 2>&1 ;; esac
exec {command} "$@"
"""


@pytest.mark.parametrize(("dag", "script"), [("retried", DYING), ("resumed", TWICE)])
def test_event_of_a_try_that_died_is_made_up_for(
    dag: str, script: str, delivery: Delivery, run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try, or the first run of a trigger, did its work and died before it could say so."""
    host = tmp_path / "dying"
    host.write_text(script.format(command=stagegate(), folder=tmp_path))
    host.chmod(0o755)
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", json.dumps({**delivery.connection, "host": str(host)}))
    assert run_dag("jobs", dag, source=str(delivery.spec)).states == {"stage": "success", "promote": "success"}


def test_refused_version_fails_without_retry(
    delivery: Delivery, run_dag: RunDag, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in delivery.data.iterdir():
        os.utime(file, (0, 0))
    delivery.command("stage", str(delivery.spec))
    finished = run_dag("jobs", "checking", gate="fresh")
    assert finished.states == {"check": "failed"}
    assert finished.tasks["check"].try_number == 1
    assert "It is the turn of data (data-eng@example.org) for freshness" in capfd.readouterr().out


def test_source_that_fails_is_retried(delivery: Delivery, run_dag: RunDag, capfd: pytest.CaptureFixture[str]) -> None:
    delivery.spec.write_text(delivery.spec.read_text().replace("/data", "/missing"))
    finished = run_dag("jobs", "staging", source=str(delivery.spec))
    assert finished.states == {"stage": "failed"}
    assert finished.tasks["stage"].try_number == 2
    assert "ended with 3" in capfd.readouterr().out


def test_wrong_spec_fails_without_retry(delivery: Delivery, run_dag: RunDag) -> None:
    delivery.spec.write_text("stagegate: 1\n")
    assert run_dag("jobs", "staging", source=str(delivery.spec)).tasks["stage"].try_number == 1


def test_wrong_connection_fails_a_deferred_task_without_retry(
    delivery: Delivery, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {**delivery.connection, "extra": {"catalogue": "/srv/catalog"}}
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", json.dumps(wrong))
    assert run_dag("jobs", "staging", source=str(delivery.spec)).tasks["stage"].try_number == 1


def test_answer_lets_a_waiting_promotion_go_on(delivery: Delivery, run_dag: RunDag) -> None:
    digest = delivery.promote_to_pilot()["digest"]
    answers: list[object] = []

    def answer() -> None:
        for _ in range(100):
            time.sleep(0.2)
            found = delivery.command("approve", "tiny", "--to", "production", identity=APPROVER)
            if "error" not in found:
                answers.append(found["answer"])
                return

    thread = threading.Thread(target=answer)
    thread.start()
    finished = run_dag("jobs", "promoting", to="production")
    thread.join()
    assert answers
    assert finished.result("promote")["digest"] == digest_of_last_event() == digest
    assert delivery.command("ready", "tiny@production")["digest"] == digest


def test_declined_version_fails_without_retry(
    delivery: Delivery, run_dag: RunDag, capfd: pytest.CaptureFixture[str]
) -> None:
    delivery.promote_to_pilot()
    delivery.command("check", "tiny", "--gate", "production")
    delivery.command(
        "approve", "tiny", "--to", "production", "--decline", "--reason", "too few days", identity=APPROVER
    )
    finished = run_dag("jobs", "checking", gate="production")
    assert (finished.states, finished.tasks["check"].try_number) == ({"check": "failed"}, 1)
    assert "too few days" in capfd.readouterr().out


def test_unanswered_request_fails_when_time_is_over(
    delivery: Delivery, run_dag: RunDag, capfd: pytest.CaptureFixture[str]
) -> None:
    delivery.promote_to_pilot()
    finished = run_dag("jobs", "impatient")
    assert (finished.states, finished.tasks["promote"].try_number) == ({"promote": "failed"}, 1)
    assert "It is the turn of infra (platform@example.org) for approval" in capfd.readouterr().out


def test_check_leaves_an_approval_to_the_next_task(delivery: Delivery, run_dag: RunDag) -> None:
    delivery.promote_to_pilot()
    finished = run_dag("jobs", "checking", gate="production")
    assert finished.states == {"check": "success"}
    assert finished.result("check")["outcome"] == "waiting"


def test_ready_version_is_handed_on_with_its_path(delivery: Delivery, run_dag: RunDag) -> None:
    staged = delivery.promote_to_pilot()
    assert run_dag("jobs", "requiring").result("ready")["path"] == staged["path"]
    assert run_dag("jobs", "requiring", version="tiny@production").states == {"ready": "failed"}


def test_staging_on_schedule_by_its_example(delivery: Delivery, run_dag: RunDag) -> None:
    finished = run_dag("stage_on_schedule", "dag", spec=str(delivery.spec))
    assert finished.result("stage")["files"] == 3


def test_pilot_to_production_by_its_example(delivery: Delivery, run_dag: RunDag) -> None:
    """The approval was given by the command line before, so that nobody is asked in Airflow."""
    delivery.promote_to_pilot()
    delivery.command("check", "tiny", "--gate", "production")
    delivery.command("approve", "tiny", "--to", "production", identity=APPROVER)
    finished = run_dag("pilot_to_production", "dag", spec=str(delivery.spec))
    assert finished.states == dict.fromkeys(("stage", "pilot", "approval", "production"), "success")
    assert digest_of_last_event() == finished.result("production")["digest"]


@pytest.mark.usefixtures("delivery")
def test_example_project_reports_what_production_accepted(run_dag: RunDag, capfd: pytest.CaptureFixture[str]) -> None:
    file = DAGS / "airlines/delivery/airlines.csv"
    accepted = run_dag("airlines/airlines", "deliver")
    assert accepted.states == {"stage": "success", "production": "success"}
    whole = file.read_text()
    file.write_text("carrier;name\n")
    try:
        assert run_dag("airlines/airlines", "deliver").states == {"stage": "success", "production": "failed"}
    finally:
        file.write_text(whole)
    assert "airlines.csv" in capfd.readouterr().out
    assert run_dag("airlines/airlines", "report").result("count") == len(whole.splitlines()) - 1
