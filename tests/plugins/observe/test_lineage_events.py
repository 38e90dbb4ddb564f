"""OpenLineage events of real jobs, as a server or a file gets them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.errors import Cancelled, StagegateError, UsageError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.observe.openlineage import lineage_run as runs
from tests.plugins.observe.openlineage import Receiver, check_event, receiver
from tests.support.scenario import Scenario

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Event = dict[str, Any]
TABLE = "flights"
SUITE = {
    "expectations": [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "year"}, "severity": "critical"},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "delay", "max_value": 100}},
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": 10}, "severity": "warning"},
    ]
}


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    columns = {"year": "bigint", "delay": "bigint"}
    table = {"files": "*.csv", "suite": SUITE, "columns": columns}
    gates = {"pilot": {"require": ["schema", "expectations", "owner"]}}
    return Scenario(tmp_path, contract={"tables": {TABLE: table}}, gates=gates)


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def by_job(events: list[Event]) -> dict[str, list[Event]]:
    """The events of each job, in the order in which they came."""
    jobs: dict[str, list[Event]] = {}
    for event in events:
        check_event(event)
        jobs.setdefault(event["job"]["name"], []).append(event)
    return jobs


def dataset(event: Event, end: str, side: str = "inputs") -> Event:
    (found,) = (each for each in event[side] if each["name"].endswith(end))
    return dict(found)


def test_server_gets_the_events_of_each_job(
    scenario: Scenario, server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "canary-key")
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", "prod/nightly/0190a5b0-0000-7000-8000-000000000000")
    version = scenario.deliver("year,delay\n2013,7\n2014,500\n")
    validate(scenario.node(), "things")
    assert not check(scenario.node(), "things", "pilot").accepted
    jobs = by_job(server.events)
    states = {job: [event["eventType"] for event in events] for job, events in jobs.items()}
    assert states == {
        "things.stage": ["START", "COMPLETE"],
        "things.validate": ["START", "COMPLETE"],
        "things.check.pilot": ["START", "COMPLETE"],
    }
    for events in jobs.values():
        assert len({event["run"]["runId"] for event in events}) == 1
        assert {event["job"]["namespace"] for event in events} == {"stagegate"}
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer canary-key"}
    assert "canary-key" not in json.dumps(server.events)
    run = jobs["things.stage"][0]["run"]["facets"]
    assert (run["parent"]["job"]["namespace"], run["parent"]["job"]["name"]) == ("prod", "nightly")
    assert run["processing_engine"]["name"] == "prefect-stagegate"

    staged = jobs["things.stage"][1]
    (source,) = staged["inputs"]
    assert (source["namespace"], source["name"]) == ("file", str(scenario.nas))
    whole, table = staged["outputs"]
    assert whole["name"] == f"{scenario.on['catalog']}/datasets/things"
    assert whole["facets"]["version"]["datasetVersion"] == version.digest
    assert whole["outputFacets"]["outputStatistics"]["fileCount"] == 1
    assert table["name"] == f"{whole['name']}/tables/{TABLE}"
    assert table["facets"]["storage"]["fileFormat"] == "csv"
    assert [each["name"] for each in table["facets"]["schema"]["fields"]] == ["year", "delay"]
    (came,) = table["facets"]["columnLineage"]["fields"]["year"]["inputFields"]
    assert (came["name"], came["field"]) == (source["name"], "year")
    assert came["transformations"][0]["subtype"] == "IDENTITY"

    validated = jobs["things.validate"][1]
    found = dataset(validated, f"/tables/{TABLE}")["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert {(each.get("column"), each["success"], each["severity"]) for each in found} == {
        ("year", True, "error"),
        ("delay", False, "error"),
        (None, True, "warn"),
    }

    checked = dataset(jobs["things.check.pilot"][1], "/things")["inputFacets"]["dataQualityAssertions"]["assertions"]
    found = {each["assertion"]: each["success"] for each in checked}
    assert found == {"schema": True, "expectations": False, "owner": True}


def test_promotion_leads_to_the_ref(scenario: Scenario, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    digest = scenario.deliver("year,delay\n2013,7\n", gates={"pilot": {"require": ["owner"]}}).digest
    scenario.promote("pilot")
    promoted = by_job(server.events)["things.promote.pilot"][1]
    ref = dataset(promoted, "/things/refs/pilot", "outputs")
    assert ref["facets"]["version"]["datasetVersion"] == digest
    table = dataset(promoted, f"/refs/pilot/tables/{TABLE}", "outputs")
    (came,) = table["facets"]["columnLineage"]["fields"]["delay"]["inputFields"]
    assert came["name"] == dataset(promoted, f"/things/tables/{TABLE}")["name"]


def test_file_gets_events_by_the_clients_own_settings(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, log = tmp_path / "openlineage.yml", tmp_path / "events.jsonl"
    settings.write_text(yaml.safe_dump({"transport": {"type": "file", "log_file_path": str(log), "append": True}}))
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(settings))
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "training")
    version = scenario.deliver("year,delay\n2013,7\n")
    stage(scenario.node(cache="elsewhere"), Address("things", version.digest))
    *_, fetched = (json.loads(line) for line in log.read_text().splitlines())
    check_event(fetched)
    assert fetched["job"]["namespace"] == "training"
    assert fetched["inputs"][0]["facets"]["version"]["datasetVersion"] == version.digest
    (copy,) = fetched["outputs"]
    assert copy["namespace"].startswith("file://")
    assert copy["name"].startswith(str(tmp_path / "elsewhere/views"))


def test_failed_jobs_tell_why(scenario: Scenario, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    scenario.deliver("year,delay\n2013,7\n")
    with pytest.raises(StagegateError):
        promote(scenario.node(), Address("things"), "pilot")
    with pytest.raises(StagegateError):
        stage(scenario.node(), scenario.spec(sources=[{"url": str(scenario.folder / "nowhere")}]))
    with pytest.raises(UsageError):
        validate(scenario.node(), "nothing")
    jobs = by_job(server.events)
    refused, failed = jobs["things.promote.pilot"][-1], jobs["things.stage"][-1]
    assert refused["eventType"] == failed["eventType"] == "FAIL"
    assert "never checked" in refused["run"]["facets"]["errorMessage"]["message"]
    assert "nowhere" in failed["run"]["facets"]["errorMessage"]["message"]
    assert "nothing.validate" not in jobs


def test_stopped_jobs_are_aborted(scenario: Scenario, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    monkeypatch.setattr(runs, "WAIT_INTERRUPTED_SECONDS", 5.0)
    scenario.write("year,delay\n2013,7\n")
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        stage(scenario.node(), scenario.spec(), cancel=cancel)
    assert [event["eventType"] for event in by_job(server.events)["things.stage"]] == ["START", "ABORT"]


def test_trials_are_not_told(scenario: Scenario, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.deliver("year,delay\n2013,7\n")
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    validate(scenario.node(), "things", spec=scenario.spec())
    check(scenario.node(), "things", "pilot", spec=scenario.spec())
    assert not server.events


def test_hostile_names_are_told_escaped(tmp_path: Path, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    columns = {"a\u202eb": "bigint", "<img src=x>": "bigint"}
    contract = {"tables": {"t</b>\u202e": {"files": "*.csv", "columns": columns}}}
    scenario = Scenario(tmp_path, contract=contract, owners={"data": "</b>\u202eeve"})
    folder = tmp_path / "nas \u202e<b>"
    folder.mkdir()
    (folder / "x.csv").write_text("a\n1\n")
    stage(scenario.node(), scenario.spec(sources=[{"url": str(folder)}]))
    (start, complete) = by_job(server.events)["things.stage"]
    text = json.dumps([start, complete], ensure_ascii=False)
    assert "\u202e" not in text
    assert "nas \\\\u202e<b>" in text
    assert "<img src=x>" in complete["outputs"][1]["facets"]["columnLineage"]["fields"]


@pytest.mark.parametrize("status", [500, 403])
def test_refusing_server_ends_no_job(
    scenario: Scenario, server: Receiver, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.status = status
    monkeypatch.setenv("OPENLINEAGE_URL", server.url.replace("//", "//me:canary-word@"))
    monkeypatch.setattr(runs, "WAIT_SECONDS", 2.0)
    begun = time.monotonic()
    assert scenario.deliver("year,delay\n2013,7\n").files == 1
    assert time.monotonic() - begun < 30
    assert "OpenLineage events of the job things.stage were not sent: " in caplog.text
    assert "canary-word" not in caplog.text
    assert {name for name in os.environ if name.startswith("OPENLINEAGE")} == {"OPENLINEAGE_URL"}


def test_silent_server_is_waited_for_briefly(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runs, "WAIT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        scenario.deliver("year,delay\n2013,7\n")
    assert "things.stage were not sent: the transport took longer than 0.5 s" in caplog.text


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"OPENLINEAGE_CONFIG": "/nowhere/openlineage.yml"}, "names /nowhere/openlineage.yml, which is no file"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "pigeon"}, "pigeon"),
        ({"OPENLINEAGE_URL": "no url"}, "no url"),
    ],
    ids=["no file", "no such transport", "no URL"],
)
def test_wrong_settings_are_named(
    scenario: Scenario,
    settings: dict[str, str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    scenario.deliver("year,delay\n2013,7\n")
    assert problem in caplog.text


def test_settings_in_the_working_folder_are_not_read(
    scenario: Scenario, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    log = tmp_path / "stolen.jsonl"
    transport = {"type": "file", "log_file_path": str(log), "append": True}
    (trap / "openlineage.yml").write_text(yaml.safe_dump({"transport": transport}))
    monkeypatch.chdir(trap)
    scenario.deliver("year,delay\n2013,7\n")
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    scenario.deliver("year,delay\n2013,8\n")
    assert len(server.events) == 2
    assert not log.exists()


def test_without_settings_nothing_is_loaded(scenario: Scenario) -> None:
    program = (
        "import sys\nfrom prefect_stagegate.jobs.staging.stage import stage\n"
        "from prefect_stagegate.jobs.open_workspace import open_workspace\n"
        f"stage(open_workspace(), {str(scenario.spec_file())!r})\n"
        "print(sorted(name for name in sys.modules if name.startswith('openlineage')))"
    )
    scenario.write("year,delay\n2013,7\n")
    settings = {**os.environ, **scenario.environment()}
    done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_missing_extra_is_named(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:1")
    monkeypatch.delitem(sys.modules, "prefect_stagegate.plugins.observe.openlineage.openlineage_events", raising=False)
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    scenario.deliver("year,delay\n2013,7\n")
    assert 'pip install "prefect-stagegate[openlineage]"' in caplog.text


def test_command_warns_and_succeeds(scenario: Scenario, run_stagegate: Run) -> None:
    scenario.write("year,delay\n2013,7\n")
    settings = {"OPENLINEAGE_CONFIG": "/nowhere.yml"}
    done = run_stagegate("stage", scenario.spec_file(), env=settings)
    assert done.returncode == 0
    assert "OpenLineage events of the job things.stage were not sent" in done.stderr


def test_server_that_is_down_is_one_warning(scenario: Scenario, run_stagegate: Run) -> None:
    scenario.write("year,delay\n2013,7\n")
    done = run_stagegate("stage", scenario.spec_file(), env={"OPENLINEAGE_URL": "http://127.0.0.1:1"})
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.endswith("OpenLineage events of the job things.stage were not sent: the transport took longer than 5 s")
