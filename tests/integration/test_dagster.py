"""`deployments/orchestrators/dagster_assets.py` in Dagster, which has an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cache import Cache
from tests.support.orchestrators import ENVIRONMENT, FILES, install_command
from tests.support.scenario import Scenario
from tests.support.waiting import eventually
from tests.support.webservers import rclone

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MATERIALIZE = """
import json, sys
import dagster as dg
from dagster_assets import definitions, nycflights

with dg.instance_for_test() as instance:
    result = dg.materialize([nycflights], instance=instance, raise_on_error=False)
    events = [event.event_type_value for event in result.all_events]
    (step,) = [event for event in result.all_events if event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE")]
    latest = instance.get_latest_materialization_event(nycflights.key)
    print(json.dumps({
        "retries": events.count("STEP_UP_FOR_RETRY"),
        "failure": step.step_failure_data.error.to_string() if step.is_failure else "",
        "metadata": latest and {name: entry.value for name, entry in latest.asset_materialization.metadata.items()},
        "version": latest and latest.asset_materialization.tags["dagster/data_version"],
    }))
"""


class Dagster:
    """A node and its dataset, and the deployment's file with the paths of this test in place of its own."""

    def __init__(self, folder: Path) -> None:
        self.data = Scenario(folder, "nycflights", gates={"pilot": {"require": ["cache_fit"]}})
        self.spec = self.data.spec_file("nycflights.yaml")
        command = install_command(folder / "bin")
        text = (FILES / "dagster_assets.py").read_text().replace("seconds_to_wait=60", "seconds_to_wait=0")
        text = text.replace("/opt/stagegate/bin/stagegate", str(command))
        (folder / "dagster_assets.py").write_text(text.replace("/etc/stagegate/nycflights.yaml", str(self.spec)))
        self._folder = folder

    def start(self, **settings: str) -> subprocess.Popen[str]:
        """Start a process that materializes the asset."""
        environment = {**os.environ, **self.data.environment(STAGEGATE_RETRIES="0"), **settings}
        return subprocess.Popen(
            [ENVIRONMENT / "bin/python", "-c", MATERIALIZE],
            cwd=self._folder,
            env={**environment, "DAGSTER_DISABLE_TELEMETRY": "yes", "PYTHONPATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def materialize(self) -> dict[str, Any]:
        """Materialize the asset; returns what came of it."""
        process = self.start()
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        answer: dict[str, Any] = json.loads(output.splitlines()[-1])
        return answer


@pytest.fixture
def dagster(tmp_path: Path) -> Dagster:
    return Dagster(tmp_path)


def test_asset_is_staged_checked_and_promoted(dagster: Dagster) -> None:
    dagster.data.write("origin,delay\nJFK,4\n")
    first, second = dagster.materialize(), dagster.materialize()
    assert (first["failure"], second["failure"]) == ("", "")
    assert first["version"] == second["version"] == first["metadata"]["digest"] == dagster.data.head("pilot")
    assert (first["metadata"]["bytes_fetched"], second["metadata"]["bytes_fetched"]) == (19, 0)
    assert Path(first["metadata"]["path"], "data.csv").read_text() == "origin,delay\nJFK,4\n"


def test_refused_version_fails_without_a_retry(dagster: Dagster) -> None:
    dagster.data.write("origin,delay\nJFK,4\n")
    dagster.data.spec_file("nycflights.yaml", gates={"pilot": {"require": ["runbook"]}})
    answer = dagster.materialize()
    assert answer["retries"] == 0
    assert "exits with 1: It fails runbook. Set `runbook` in the spec" in answer["failure"]
    assert dagster.data.head("pilot") == ""


def test_source_that_is_away_is_tried_again(dagster: Dagster) -> None:
    dagster.data.spec_file("nycflights.yaml", sources=[{"url": "http://127.0.0.1:1/"}])
    answer = dagster.materialize()
    assert (answer["retries"], "exits with 3" in answer["failure"]) == (3, True)


def test_terminated_run_stops_the_command(dagster: Dagster, tmp_path: Path) -> None:
    with rclone("http", tmp_path / "http", "--read-only") as server:
        (server.root / "large.bin").write_bytes(os.urandom(4 << 20))
        dagster.data.spec_file("nycflights.yaml", sources=[{"url": server.url}])
        process = dagster.start(STAGEGATE_BANDWIDTH="64KiB", STAGEGATE_PART_SIZE="64KiB", STAGEGATE_MEMORY="1MiB")
        leases = Cache.open(tmp_path / "cache").leases
        assert eventually(leases.live, 100)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert leases.live() == []
