"""What runs tell a real Prefect server: events, assets, artifacts, and how many calls that takes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.assets import materialize
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.cli.events import PATIENCE
from prefect_stagegate.flows import pilot_to_production, stage, sweep
from prefect_stagegate.model import Address, Decision, Version
from prefect_stagegate.operations.gating.approve import approve
from prefect_stagegate.operations.gating.check import check
from prefect_stagegate.operations.gating.promote import promote
from prefect_stagegate.operations.staging.stage import stage as make_version
from prefect_stagegate.operations.workspace import open_workspace
from prefect_stagegate.readiness import CHECKS
from prefect_stagegate.tasks import check_readiness, require_ready, stage_dataset, validate_dataset
from prefect_stagegate.tasks._support import events, progress
from prefect_stagegate.tasks._support import notify as telling
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.calls import Call, CallCounter
from tests.support.proxy import FaultProxy
from tests.support.scenario import INES, Scenario, dataset_name
from tests.support.told import artifact, artifacts_of, events_about, task_runs_of

pytestmark = pytest.mark.usefixtures("prefect_server")

Command = Callable[..., subprocess.CompletedProcess[str]]
EVENTS = (Path(__file__).parents[2] / "docs/events.md").read_text()
GATES = {
    "pilot": {"require": ["runbook"]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1}}]},
}


class EventScenario(Scenario):
    """A scenario with a dataset name that no other test uses, since events are found by it."""

    def events(self, count: int) -> list[dict[str, Any]]:
        return events_about(f"stagegate.dataset.{self.dataset}", count)


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> EventScenario:
    place = EventScenario(tmp_path, dataset_name(request), runbook="https://wiki.example.org/", gates=GATES)
    place.write("first")
    (place.nas / "more.csv").write_text("more")
    return place


def run(of: Any, *args: Any, **parameters: Any) -> Any:
    return of(*args, **parameters)


def related(event: dict[str, Any]) -> dict[str, str]:
    """Role → id of what an event relates; roles that Prefect gives more than once are tags."""
    return {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_step_emits_one_event_with_its_run_and_version(place: EventScenario) -> None:
    asked: Decision = run(pilot_to_production, place.spec(), **place.on)
    run(pilot_to_production, version=f"{place.dataset}@{asked.digest}", **place.on)  # one request is told once
    approve(place.node(INES), Address(place.dataset), "production")
    decided: Decision = run(pilot_to_production, place.spec(), **place.on)

    told = place.events(8)
    assert [one["event"].removeprefix("stagegate.") for one in told] == [
        *("version.staged", "gate.passed", "ref.moved", "approval.requested"),
        "gate.passed",
        *("gate.passed", "gate.passed", "ref.moved"),
    ]
    assert asked.digest == decided.digest
    requested = told[3]["payload"]
    assert (requested["digest"], requested["target"], requested["groups"]) == (asked.digest, "production", ["anybody"])
    assert requested["turn"] == f"anybody, except {requested['requester']}, who asked"
    staged, last = told[0]["payload"], told[-1]
    assert staged["version"] == f"{place.dataset}@{decided.digest}"
    assert (staged["files"], staged["bytes"], staged["bytes_fetched"]) == (2, 9, 9)
    assert last["payload"] == {
        "version": staged["version"],
        "dataset": place.dataset,
        "digest": decided.digest,
        "target": "production",
        "previous": "",
    }
    assert last["resource"]["stagegate.target"] == "production"
    for one in told:
        assert {"flow-run", "task-run", "flow", "tag"} <= related(one).keys()
        assert related(one)["asset"] == f"stagegate://{place.dataset}@{decided.digest.replace(':', '-')}"


@pytest.mark.timeout(240)  # four commands that load Prefect
def test_commands_tell_the_api_what_they_did(place: EventScenario, run_stagegate: Command) -> None:
    env = place.environment(PREFECT_API_URL=str(PREFECT_API_URL.value()))

    def do(*words: str, code: int = 0) -> None:
        done = run_stagegate(*words, env=env)
        assert (done.returncode, done.stderr) == (code, ""), done.stdout

    workspace = open_workspace(**place.on)
    digests = [make_version(workspace, place.spec()).digest]
    assert check(workspace, place.dataset, "pilot").accepted
    promote(workspace, Address(place.dataset), "pilot")
    place.write("second")
    digests.append(make_version(workspace, place.spec()).digest)
    do("check", place.dataset, "--gate", "pilot")
    do("promote", f"{place.dataset}@{digests[-1]}", "--to", "pilot")
    do("check", place.dataset, "--gate", "production", code=4)
    do("rollback", f"{place.dataset}@pilot", "--reason", "loss went up")

    told = [one["event"].removeprefix("stagegate.") for one in place.events(4)]
    assert told == ["gate.passed", "ref.moved", "approval.requested", "ref.moved"]
    assert [place.events(4)[-1]["payload"][name] for name in ("digest", "previous")] == digests


def test_trial_emits_nothing_and_takes_no_page_s_place(
    place: EventScenario, run_stagegate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGEGATE_REPORTS", str(tmp_path / "reports"))
    lax = {"gates": {"production": {"require": ["runbook"]}}}
    version = make_version(open_workspace(**place.on), place.spec())
    assert not run(flow(check_readiness.fn), version.address, "production", **place.on).accepted
    (page,) = (tmp_path / "reports").rglob("*.html")
    kept = page.read_bytes()
    untouched = [
        artifact(f"{place.dataset}-production-{what}")["id"] for what in ("summary", "gate", "checks", "report")
    ]

    assert run(flow(check_readiness.fn), version.address, "production", spec=place.spec(**lax), **place.on).accepted
    (tmp_path / "lax.json").write_text(json.dumps(place.spec(**lax)))
    env = place.environment(PREFECT_API_URL=str(PREFECT_API_URL.value()))
    words = ("check", version.address, "--gate", "production", "--spec", str(tmp_path / "lax.json"))
    assert run_stagegate(*words, env=env).returncode == 0
    run(flow(validate_dataset.fn), version.address, spec=place.spec(**lax), **place.on)

    assert [one["event"] for one in place.events(0)] == [events.GATE_FAILED]
    assert page.read_bytes() == kept
    assert [
        artifact(f"{place.dataset}-production-{what}")["id"] for what in ("summary", "gate", "checks", "report")
    ] == (untouched)
    for what in ("summary", "gate", "checks"):
        assert artifact(f"{place.dataset}-production-trial-{what}")["description"].startswith("Trial: ")
    assert artifact(f"{place.dataset}-trial-contract")["description"].startswith("Trial")


def test_artifact_of_expectations_masks_personal_values(place: EventScenario) -> None:
    kinds: dict[str, dict[str, Any]] = {"email": {"value_set": ["x"]}, "age": {"value_set": [7]}}
    suite = [{"type": "expect_column_values_to_be_in_set", "kwargs": {"column": name, **kinds[name]}} for name in kinds]
    table = {"files": "*.csv", "pii": ["email"], "suite": {"expectations": suite}}
    place.write("email,age\nada.lovelace@example.org,-36\n")
    version = make_version(open_workspace(**place.on), place.spec(contract={"tables": {"people": table}}))
    assert not run(flow(validate_dataset.fn), version.address, **place.on).passed
    data = artifact(f"{place.dataset}-contract-expectations")["data"]
    rows = {row["column"]: (row["verdict"], row["refused rows"], row["examples"]) for row in json.loads(data)}
    assert rows == {"email": ("failed", "1 of 1 (100%)", "(masked)"), "age": ("failed", "1 of 1 (100%)", "-36")}


def test_commands_tell_the_api_of_the_active_profile(
    place: EventScenario, run_stagegate: Command, tmp_path: Path
) -> None:
    make_version(open_workspace(**place.on), place.spec())
    (tmp_path / "home/.prefect").mkdir()
    profile = f'active = "here"\n[profiles.here]\nPREFECT_API_URL = "{PREFECT_API_URL.value()}"\n'
    (tmp_path / "home/.prefect/profiles.toml").write_text(profile)
    assert run_stagegate("check", place.dataset, "--gate", "pilot", env=place.environment()).returncode == 0
    assert place.events(1)[0]["event"] == events.GATE_PASSED


def test_an_api_that_hangs_changes_no_command(place: EventScenario, run_stagegate: Command) -> None:
    make_version(open_workspace(**place.on), place.spec())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = place.environment(PREFECT_API_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        began = time.monotonic()
        done = run_stagegate("check", place.dataset, "--gate", "pilot", env=env)
    assert (done.returncode, "no event was sent to Prefect" in done.stderr) == (0, True)
    assert time.monotonic() - began < 2 * PATIENCE + 30  # the rest is the command itself, on a busy machine


def test_a_ref_that_moves_on_relates_the_version_that_it_leaves(place: EventScenario) -> None:
    spec = place.spec(gates={"pilot": GATES["pilot"]})
    first: Decision = run(pilot_to_production, spec, targets=["pilot"], **place.on)
    place.write("second")
    run(pilot_to_production, spec, targets=["pilot"], **place.on)

    moved = [one for one in place.events(6) if one["event"] == events.REF_MOVED][-1]

    assert moved["payload"]["previous"] == first.digest
    assert related(moved)["stagegate-previous"].endswith(first.digest.replace(":", "-"))


def test_event_of_a_gate_of_all_checks_is_small(place: EventScenario) -> None:
    gates = {"pilot": {"require": ["license"]}, "production": {"extends": "pilot", "require": sorted(CHECKS)}}
    owners = {"data": "x" * 2000, "governance": "y" * 2000}
    version = stage(place.spec(gates=gates, license="CC-BY-NC-4.0", owners=owners), **place.on)

    run(flow(check_readiness.fn), version.address, "production", **place.on)

    event = place.events(2)[-1]
    payload = event["payload"]
    assert event["event"] == events.GATE_FAILED
    assert (payload["outcome"], len(payload["checks"])) == ("refused", len(CHECKS))
    assert len(CHECKS) >= 40
    assert "license" in payload["reason"]
    assert next(iter(payload["checks"].values())) == "fail"
    assert len(json.dumps(payload)) < 4000


def examples() -> dict[str, set[str]]:
    """The keys of each event's example in the docs."""
    found: dict[str, set[str]] = {}
    for names, text in re.findall(r"^(`stagegate\.[^\n]*)\n```json\n(.*?)```", EVENTS, re.MULTILINE | re.DOTALL):
        found |= {name: set(json.loads(text)) for name in re.findall(r"stagegate[\w.]+", names)}
    return found


def test_payloads_have_the_keys_that_the_docs_show(place: EventScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_FREE_WARNING", "100%")
    run(pilot_to_production, place.spec(), **place.on)
    with pytest.raises(Exception, match="refused"):
        pilot_to_production(place.spec(runbook=None), **place.on)

    full = events_about(f"stagegate.cache.{os.uname().nodename}{place.on['cache']}", 1)
    shown = {one["event"]: set(one["payload"]) for one in [*place.events(5), *full]}

    assert shown == examples()
    named = [*vars(telling).values(), *vars(events).values()]
    assert shown.keys() == {name for name in named if str(name).startswith("stagegate.")}


def test_a_cache_that_is_nearly_full_is_told_once_a_run(place: EventScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_FREE_WARNING", "100%")

    @flow
    def twice_and_sweep() -> None:
        stage_dataset(place.spec(), **place.on)
        stage_dataset.submit(place.spec(), **place.on).wait()
        sweep.fn(**place.on)

    twice_and_sweep()
    resource = f"stagegate.cache.{os.uname().nodename}{place.on['cache']}"
    (event,) = events_about(resource)
    payload = event["payload"]
    assert payload["cache"] == str(place.on["cache"])
    assert payload["used"] + payload["free"] == payload["size"]
    assert payload["share"] == pytest.approx(payload["used"] / payload["size"], abs=1e-4)
    assert event["resource"]["stagegate.node"] == payload["node"] == os.uname().nodename

    sweep(**place.on)
    assert len(events_about(resource)) == 2

    monkeypatch.setenv("STAGEGATE_FREE_WARNING", "0%")
    monkeypatch.setenv("STAGEGATE_FREE_FLOOR", "0%")
    sweep(**place.on)
    assert len(events_about(resource)) == 2


def test_staging_that_ran_out_of_space_emits_nearly_full(place: EventScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_FREE_WARNING", "100%")

    with pytest.raises(Exception, match="no objects"):
        stage(place.spec(sources=[{"url": str(place.nas), "include": ["*.none"]}]), **place.on)

    assert len(events_about(f"stagegate.cache.{os.uname().nodename}{place.on['cache']}", 1)) == 1


# ── assets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def key_of(version: Version) -> str:
    return f"stagegate://{version.dataset}@{version.digest.replace(':', '-')}"


def test_a_new_version_is_an_asset_with_its_sources_upstream(place: EventScenario) -> None:
    other = place.nas.parent / "other files"
    other.mkdir()
    (other / "last.csv").write_text("last")
    sources = [{"url": str(place.nas)}, {"url": f"{other.as_uri()}/", "into": "other/"}]

    version = stage(place.spec(sources=sources), **place.on)

    (made,) = events_about(key_of(version), 1)
    upstream = {f"file://{place.nas}", f"file://{place.nas.parent}/other-files/"}
    assert made["event"] == "prefect.asset.materialization.succeeded"
    assert {
        one["prefect.resource.id"] for one in made["related"] if one["prefect.resource.role"] == "asset"
    } == upstream
    assert {"flow-run", "task-run"} <= related(made).keys()
    assert related(made)["asset-materialized-by"] == "prefect-stagegate"
    assert made["payload"] == {
        "digest": version.digest,
        "files": 3,
        "bytes": 13,
        "fetched": 13,
        "path": str(version.path),
    }
    assert made["resource"]["prefect.resource.name"] == f"{place.dataset} {version.digest[:19]}"
    assert "team@example.org" in made["resource"]["prefect.asset.owners"]
    for source in upstream:
        assert [one["event"] for one in events_about(source, 1)] == ["prefect.asset.referenced"]


def test_a_staging_that_finds_nothing_new_materializes_nothing(place: EventScenario) -> None:
    version = stage(place.spec(), **place.on)
    again = stage(place.spec(), **place.on)
    brought = stage(version.address, **place.on)

    assert (again.digest, brought.digest) == (version.digest, version.digest)
    assert len(events_about(key_of(version))) == 1
    assert len(events_about(f"file://{place.nas}")) == 1


@pytest.mark.parametrize("new", [True, False])
def test_what_is_made_of_a_version_has_it_upstream(place: EventScenario, new: bool) -> None:
    if not new:
        stage_dataset.fn(place.spec(), **place.on)
    model = f"s3://models/{place.dataset}"

    @materialize(model)
    def train(version: Version) -> str:
        return version.digest

    @flow
    def nightly() -> None:
        train(stage_dataset(place.spec(), **place.on))

    nightly()

    (made,) = events_about(model, 1)
    head = stage_dataset.fn(place.spec(), **place.on)
    assert made["event"] == "prefect.asset.materialization.succeeded"
    assert related(made)["asset"] == key_of(head)


def test_what_is_made_of_a_required_version_has_it_upstream(place: EventScenario) -> None:
    spec = place.spec(gates={"pilot": GATES["pilot"]})
    accepted: Decision = run(pilot_to_production, spec, targets=["pilot"], **place.on)
    model = f"s3://models/{place.dataset}"

    @materialize(model)
    def train(version: Version) -> str:
        return version.digest

    @flow
    def nightly() -> None:
        train(require_ready(f"{place.dataset}@pilot", **place.on))

    nightly()

    (made,) = events_about(model, 1)
    assert related(made)["asset"] == f"stagegate://{place.dataset}@{accepted.digest.replace(':', '-')}"


# ── artifacts ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_has_artifacts_of_summary_report_and_checks(place: EventScenario) -> None:
    asked: Decision = run(pilot_to_production, place.spec(), **place.on)

    summary, report, checks = (artifact(f"{place.dataset}-production-{what}") for what in ("summary", "gate", "checks"))
    assert "waits for approval to go to production" in summary["data"].splitlines()[0]
    assert f"`stagegate approve {place.dataset}@{asked.digest} --to production`" in summary["data"]
    assert "waits for approval to go to production" in report["data"]
    assert '"check": "approval"' in checks["data"]
    assert summary["task_run_id"]
    assert {one["key"].rpartition("-")[2] for one in artifacts_of(summary["flow_run_id"])} == {
        *("stage", "summary", "gate", "checks")
    }


def test_run_links_to_the_html_report(place: EventScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_REPORTS", str(tmp_path / "reports"))
    run(pilot_to_production, place.spec(), **place.on)

    (page,) = (tmp_path / "reports").glob(f"{place.dataset}/production/*.html")
    assert "waits for approval" in page.read_text()
    link, summary = (artifact(f"{place.dataset}-production-{what}")["data"] for what in ("report", "summary"))
    assert f"({page.as_uri()})" in link
    assert f"({page.as_uri()})" in summary

    monkeypatch.setenv("STAGEGATE_REPORTS_URL", "https://ci.example.org/reports/")
    run(pilot_to_production, version=f"{place.dataset}@sha256:{page.stem}", **place.on)
    address = f"https://ci.example.org/reports/{place.dataset}/production/{page.name}"
    assert f"({address})" in artifact(f"{place.dataset}-production-report")["data"]


def test_a_report_that_can_not_be_kept_fails_no_check(
    place: EventScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "reports").write_text("not a folder")
    monkeypatch.setenv("STAGEGATE_REPORTS", str(tmp_path / "reports"))

    decided: Decision = run(pilot_to_production, place.spec(), **place.on)

    assert decided.target == "production"
    assert "Could not keep the HTML report" in caplog.text
    assert "Whole report" not in artifact(f"{place.dataset}-production-summary")["data"]


def test_an_api_that_fails_fails_no_staging(place: EventScenario, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise httpx.ConnectError("the API is gone")

    monkeypatch.setattr("prefect.artifacts.Artifact.create", broken)
    monkeypatch.setattr("prefect_stagegate.tasks._support.progress.ProgressArtifact.create", broken)
    monkeypatch.setattr("prefect_stagegate.tasks._support.notify.emit_event", broken)
    monkeypatch.setattr("prefect_stagegate.tasks._support.lineage.Asset", broken)

    decided = pilot_to_production(place.spec(), **place.on)

    assert isinstance(decided, Decision)
    assert open_workspace(**place.on).cache.refs.of(place.dataset)["pilot"] == decided.digest
    for what in ("Progress is no longer shown", "store the artifact", "emit stagegate", "as an asset"):
        assert re.search(f"{what}.*the API is gone", caplog.text)


# ── progress, and how much the API is asked ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def slow(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A server that takes a while for each answer, asked by two threads."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    monkeypatch.setenv("STAGEGATE_OBJECTS_IN_FLIGHT", "2")
    with FaultProxy(seaweedfs.endpoint_url, delay=0.5) as proxy:
        yield proxy


def test_progress_costs_at_most_one_call_in_two_seconds(
    place: EventScenario,
    seaweedfs: SeaweedFS,
    slow: FaultProxy,
    prefect_at: Callable[[str], AbstractContextManager[None]],
) -> None:
    bucket = seaweedfs.bucket("telling-progress")
    seaweedfs.client().pipe({f"{bucket}/{number:02}.bin": bytes(50_000) for number in range(18)})
    spec = place.spec(sources=[{"url": bucket, "options": {"endpoint_url": slow.url}}])

    with CallCounter(PREFECT_API_URL.value()) as counter:
        with prefect_at(counter.url):
            begun = time.monotonic()
            stage(spec, **place.on)
            lasted = time.monotonic() - begun
            shown = [call for call in counter.calls if "/artifacts/" in call.path]
            last = artifact(f"{place.dataset}-stage")
            counter.calls.clear()
            stage(spec, **place.on)
        again = [call for call in counter.calls if "/artifacts/" in call.path]

    assert progress.INTERVAL == 2.0
    assert lasted > 4.5
    assert 3 <= len(shown) <= 1 + lasted / 2
    gaps = [later.at - earlier.at for earlier, later in pairwise(shown)]
    assert min(gaps[:-1]) > 1.9  # the last one comes with the end
    assert (float(last["data"]), last["description"]) == (100.0, "900.0 kB of 900.0 kB, 18 of 18 objects")
    assert last["task_run_id"]
    assert not again


STAGE = """
import sys
from prefect_stagegate.flows import stage
state = stage({"stagegate": 1, "dataset": sys.argv[1], "sources": [{"url": sys.argv[2]}]}, return_state=True)
assert state.is_completed(), state
print(state.state_details.flow_run_id)
"""


def counted(files: int, folder: Path) -> tuple[str, list[Call]]:
    """Stage so many files in a process of its own; returns the flow run, and the calls of the whole process."""
    source = folder / f"source-{files}"
    source.mkdir()
    for number in range(files):
        (source / f"{number:05}.bin").write_bytes(number.to_bytes(2))
    places = {f"STAGEGATE_{name.upper()}": str(folder / f"{name}-{files}") for name in ("cache", "catalog")}
    command = [sys.executable, "-c", STAGE, f"counted-{files}", str(source)]
    with CallCounter(PREFECT_API_URL.value()) as counter:
        environment = {**os.environ, **places, "PREFECT_API_URL": counter.url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 0, done.stderr
        # What was refused for a moment, for the server was busy, is asked again by Prefect.
        return done.stdout.split()[-1], [call for call in counter.calls if call.status < 400]


def test_calls_do_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        few, many = pool.map(lambda files: counted(files, tmp_path), (10, 10_000))

    assert len(task_runs_of(few[0])) == len(task_runs_of(many[0])) == 1
    timed = ("/artifacts/", "/logs/")  # what is sent at intervals, and so more often in a longer run
    steady = [
        Counter(str(call) for call in calls if not any(part in call.path for part in timed)) for _, calls in (few, many)
    ]
    assert steady[0] == steady[1]
    longer = many[1][-1].at - many[1][0].at
    assert len(many[1]) <= len(few[1]) + 2 + len(timed) * longer / 2
