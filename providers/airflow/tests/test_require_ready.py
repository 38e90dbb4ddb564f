"""`@task.require_ready`: functions that get a version, which stays on the node while they run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import task

from airflow_provider_stagegate.holding import hold_ready
from airflow_provider_stagegate.hook import StagegateHook
from tests.conftest import Delivery, RunDag
from tests.endless import wait_until
from tests.test_ending import ENDED_WITHIN

WORKER = """
import time
from airflow_provider_stagegate.holding import hold_ready
from airflow_provider_stagegate.hook import StagegateHook
with hold_ready(StagegateHook(), "tiny@pilot", print):
    time.sleep(60)
"""
"""A worker whose function takes a minute."""


def test_function_gets_a_held_version(delivery: Delivery, run_dag: RunDag) -> None:
    digest = delivery.promote_to_pilot()["digest"]
    seen = run_dag("training", "training").result("train")
    assert seen == {"files": ["0.csv", "1.csv", "2.csv"], "digest": digest, "held": [digest]}
    assert delivery.leases() == []


def test_node_that_lacks_the_version_fetches_it(
    delivery: Delivery, run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = delivery.promote_to_pilot()["digest"]
    connection = delivery.connection
    connection["extra"]["cache"] = str(tmp_path / "another-node")
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", json.dumps(connection))
    assert run_dag("training", "training").result("train")["digest"] == digest


def test_version_that_is_not_there_calls_no_function(delivery: Delivery, run_dag: RunDag) -> None:
    delivery.promote_to_pilot()
    finished = run_dag("training", "training", version="tiny@production")
    assert (finished.states, finished.tasks["train"].try_number) == ({"train": "failed"}, 1)


def test_digest_of_an_event_only_counts_if_the_ref_names_it(
    delivery: Delivery, run_dag: RunDag, capfd: pytest.CaptureFixture[str]
) -> None:
    promoted = delivery.promote_to_pilot()["digest"]
    (delivery.data / "0.csv").write_text("day,delay\n0,999\n")
    unpromoted = delivery.command("stage", str(delivery.spec))["digest"]
    assert run_dag("training", "digests", digest=promoted).result("train_on") == promoted
    assert run_dag("training", "digests", digest=unpromoted).states == {"train_on": "failed"}
    assert f"tiny@pilot names {promoted}, and not {unpromoted}" in capfd.readouterr().out


@pytest.mark.parametrize("digest", ["", "None", "latest", "sha256:0", "sha256:" + "0" * 64 + "\n"])
def test_text_that_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(AirflowFailException, match="is no digest"), hold_ready(StagegateHook(), "tiny", print, digest):
        pass


def test_function_that_fails_leaves_no_lease(delivery: Delivery, run_dag: RunDag) -> None:
    delivery.promote_to_pilot()
    assert run_dag("training", "failing").states == {"fail": "failed"}
    assert delivery.leases() == []


def test_mapped_functions_get_the_version_too(delivery: Delivery, run_dag: RunDag) -> None:
    delivery.promote_to_pilot()
    finished = run_dag("training", "folds")
    assert {str(instance.state) for instance in finished.run.get_task_instances()} == {"success"}


def test_killed_worker_leaves_no_lease(delivery: Delivery) -> None:
    delivery.promote_to_pilot()
    with subprocess.Popen([sys.executable, "-c", WORKER], env=dict(os.environ)) as worker:
        wait_until(delivery.leases)
        worker.send_signal(signal.SIGKILL)
    wait_until(lambda: not delivery.leases(), ENDED_WITHIN + 3)


def test_decorator_without_a_version_says_how_to_name_one() -> None:
    with pytest.raises(TypeError, match=r"@task\.require_ready"):
        task.require_ready(lambda path: path)
