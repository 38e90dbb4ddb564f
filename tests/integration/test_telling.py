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
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.assets import materialize
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.cli.reporting import EVENT_SECONDS
from prefect_stagegate.clock import now
from prefect_stagegate.flows import pilot_to_production, stage, sweep
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.revoke import revoke
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.review.inbox import (
    AcceptedVersion,
    ActionKind,
    InboxLine,
    PendingAction,
    TargetStanding,
)
from prefect_stagegate.jobs.staging.stage import stage as make_version
from prefect_stagegate.model import Address, Decision, Version
from prefect_stagegate.tasks import check_readiness, require_ready, stage_dataset, validate_dataset
from prefect_stagegate.tasks._support import notify as telling
from prefect_stagegate.tasks._support import run_progress, version_events
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
def scenario(tmp_path: Path, request: pytest.FixtureRequest) -> EventScenario:
    scenario = EventScenario(tmp_path, dataset_name(request), runbook="https://wiki.example.org/", gates=GATES)
    scenario.write("first")
    (scenario.nas / "more.csv").write_text("more")
    return scenario


def run(of: Any, *args: Any, **parameters: Any) -> Any:
    return of(*args, **parameters)


def related(event: dict[str, Any]) -> dict[str, str]:
    """Role → id of what an event relates; roles that Prefect gives more than once are tags."""
    return {resource["prefect.resource.role"]: resource["prefect.resource.id"] for resource in event["related"]}


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_step_emits_one_event_with_its_run_and_version(scenario: EventScenario) -> None:
    decision: Decision = run(pilot_to_production, scenario.spec(), **scenario.on)
    run(pilot_to_production, version=f"{scenario.dataset}@{decision.digest}", **scenario.on)  # one request is told once
    approve(scenario.node(INES), Address(scenario.dataset), "production")
    decided: Decision = run(pilot_to_production, scenario.spec(), **scenario.on)

    emitted = scenario.events(8)
    assert [event["event"].removeprefix("stagegate.") for event in emitted] == [
        *("version.staged", "gate.passed", "ref.moved", "approval.requested"),
        "gate.passed",
        *("gate.passed", "gate.passed", "ref.moved"),
    ]
    assert decision.digest == decided.digest
    requested = emitted[3]["payload"]
    assert (requested["digest"], requested["target"], requested["groups"]) == (
        decision.digest,
        "production",
        ["anybody"],
    )
    assert requested["turn"] == f"anybody, except {requested['requester']}, who asked"
    staged, last = emitted[0]["payload"], emitted[-1]
    assert staged["version"] == f"{scenario.dataset}@{decided.digest}"
    assert (staged["files"], staged["bytes"], staged["bytes_fetched"]) == (2, 9, 9)
    assert last["payload"] == {
        "version": staged["version"],
        "dataset": scenario.dataset,
        "digest": decided.digest,
        "target": "production",
        "previous": "",
    }
    assert last["resource"]["stagegate.target"] == "production"
    for event in emitted:
        assert {"flow-run", "task-run", "flow", "tag"} <= related(event).keys()
        assert related(event)["asset"] == f"stagegate://{scenario.dataset}@{decided.digest.replace(':', '-')}"


@pytest.mark.timeout(240)  # four commands that load Prefect
def test_commands_tell_the_api_what_they_did(scenario: EventScenario, run_stagegate: Command) -> None:
    env = scenario.environment(PREFECT_API_URL=str(PREFECT_API_URL.value()))

    def do(*words: str, code: int = 0) -> None:
        done = run_stagegate(*words, env=env)
        assert (done.returncode, done.stderr) == (code, ""), done.stdout

    workspace = open_workspace(**scenario.on)
    digests = [make_version(workspace, scenario.spec()).digest]
    assert check(workspace, scenario.dataset, "pilot").accepted
    promote(workspace, Address(scenario.dataset), "pilot")
    scenario.write("second")
    digests.append(make_version(workspace, scenario.spec()).digest)
    do("check", scenario.dataset, "--gate", "pilot")
    do("promote", f"{scenario.dataset}@{digests[-1]}", "--to", "pilot")
    do("check", scenario.dataset, "--gate", "production", code=4)
    do("rollback", f"{scenario.dataset}@pilot", "--reason", "loss went up")

    emitted = [event["event"].removeprefix("stagegate.") for event in scenario.events(5)]
    assert emitted == ["gate.passed", "ref.moved", "approval.requested", "ref.moved", "version.withdrawn"]
    moved, withdrawn = (event["payload"] for event in scenario.events(5)[-2:])
    assert [moved[name] for name in ("digest", "previous")] == digests
    assert (withdrawn["digest"], withdrawn["reason"], withdrawn["users"]) == (digests[-1], "loss went up", {})


def test_trial_emits_nothing(scenario: EventScenario, run_stagegate: Command, tmp_path: Path) -> None:
    lax = {"gates": {"production": {"require": ["runbook"]}}}
    version = make_version(open_workspace(**scenario.on), scenario.spec())
    assert not run(flow(check_readiness.fn), version.address, "production", **scenario.on).accepted
    untouched = artifact(f"{scenario.dataset}-production-decision")["id"]

    assert run(
        flow(check_readiness.fn), version.address, "production", spec=scenario.spec(**lax), **scenario.on
    ).accepted
    (tmp_path / "lax.json").write_text(json.dumps(scenario.spec(**lax)))
    env = scenario.environment(PREFECT_API_URL=str(PREFECT_API_URL.value()))
    words = ("check", version.address, "--gate", "production", "--spec", str(tmp_path / "lax.json"))
    assert run_stagegate(*words, env=env).returncode == 0
    run(flow(validate_dataset.fn), version.address, spec=scenario.spec(**lax), **scenario.on)

    assert [event["event"] for event in scenario.events(0)] == [version_events.GATE_FAILED]
    assert artifact(f"{scenario.dataset}-production-decision")["id"] == untouched
    assert artifact(f"{scenario.dataset}-production-trial")["description"].startswith("Trial: ")
    assert artifact(f"{scenario.dataset}-trial-contract")["description"].startswith("Trial")


def test_artifact_of_expectations_masks_personal_values(scenario: EventScenario) -> None:
    kinds: dict[str, dict[str, object]] = {"email": {"value_set": ["x"]}, "age": {"value_set": [7]}}
    suite = [{"type": "expect_column_values_to_be_in_set", "kwargs": {"column": name, **kinds[name]}} for name in kinds]
    table = {"files": "*.csv", "pii": ["email"], "suite": {"expectations": suite}}
    scenario.write("email,age\nada.lovelace@example.org,-36\n")
    version = make_version(open_workspace(**scenario.on), scenario.spec(contract={"tables": {"people": table}}))
    assert not run(flow(validate_dataset.fn), version.address, **scenario.on).passed
    page = artifact(f"{scenario.dataset}-contract")["data"]
    assert "lovelace" not in page
    rows = re.findall(r"\((\w+)\): .*found 1 of 1 \(100%\) refused, examples (`.+?`), ", page)
    assert dict(rows) == {"email": "`(masked)`", "age": "`-36`"}


@pytest.mark.system
def test_commands_tell_the_api_of_the_active_profile(
    scenario: EventScenario, run_stagegate: Command, tmp_path: Path
) -> None:
    make_version(open_workspace(**scenario.on), scenario.spec())
    (tmp_path / "home/.prefect").mkdir()
    profile = f'active = "here"\n[profiles.here]\nPREFECT_API_URL = "{PREFECT_API_URL.value()}"\n'
    (tmp_path / "home/.prefect/profiles.toml").write_text(profile)
    assert run_stagegate("check", scenario.dataset, "--gate", "pilot", env=scenario.environment()).returncode == 0
    assert scenario.events(1)[0]["event"] == version_events.GATE_PASSED


def test_an_api_that_hangs_changes_no_command(scenario: EventScenario, run_stagegate: Command) -> None:
    make_version(open_workspace(**scenario.on), scenario.spec())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = scenario.environment(PREFECT_API_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        began = time.monotonic()
        done = run_stagegate("check", scenario.dataset, "--gate", "pilot", env=env)
    assert (done.returncode, "no event was sent to Prefect" in done.stderr) == (0, True)
    assert time.monotonic() - began < 2 * EVENT_SECONDS + 30  # the rest is the command itself, on a busy machine


def test_a_ref_that_moves_on_relates_the_version_that_it_leaves(scenario: EventScenario) -> None:
    spec = scenario.spec(gates={"pilot": GATES["pilot"]})
    first: Decision = run(pilot_to_production, spec, targets=["pilot"], **scenario.on)
    scenario.write("second")
    run(pilot_to_production, spec, targets=["pilot"], **scenario.on)

    moved = [event for event in scenario.events(6) if event["event"] == version_events.REF_MOVED][-1]

    assert moved["payload"]["previous"] == first.digest
    assert related(moved)["stagegate-previous"].endswith(first.digest.replace(":", "-"))


def test_event_of_a_gate_of_all_checks_is_small(scenario: EventScenario) -> None:
    gates = {"pilot": {"require": ["license"]}, "production": {"extends": "pilot", "require": sorted(CHECKS)}}
    owners = {"data": "x" * 2000, "governance": "y" * 2000}
    version = stage(scenario.spec(gates=gates, license="CC-BY-NC-4.0", owners=owners), **scenario.on)

    run(flow(check_readiness.fn), version.address, "production", **scenario.on)

    event = scenario.events(2)[-1]
    payload = event["payload"]
    assert event["event"] == version_events.GATE_FAILED
    assert (payload["outcome"], len(payload["checks"])) == ("refused", len(CHECKS))
    assert "license" in payload["reason"]
    assert next(iter(payload["checks"].values())) == "fail"
    assert len(json.dumps(payload)) < 4000


def examples() -> dict[str, set[str]]:
    """The keys of each event's example in the docs."""
    payloads: dict[str, set[str]] = {}
    for names, text in re.findall(r"^(`stagegate\.[^\n]*)\n```json\n(.*?)```", EVENTS, re.MULTILINE | re.DOTALL):
        payloads |= {name: set(json.loads(text)) for name in re.findall(r"stagegate[\w.]+", names)}
    return payloads


def an_ending() -> InboxLine:
    """A line of the inbox with evidence that ends soon."""
    at, ends = "2026-03-01T03:00:00.000000Z", "2026-03-02T03:00:00.000000Z"
    accepted = AcceptedVersion("sha256:4f", at, str(INES), at, ends, ends, "freshness")
    action = PendingAction(ActionKind.CHECK, (), at, "it ends", "stagegate check", "sha256:4f", ("freshness",))
    return InboxLine("things", "pilot", TargetStanding.ENDING, accepted, actions=(action,))


def taken_back(scenario: EventScenario) -> list[version_events.VersionEvent]:
    """The events of a rollback and of a revocation."""
    workspace = scenario.node()
    scenario.deliver("second")
    scenario.promote("pilot")
    scenario.deliver("third")
    leaving = scenario.promote("pilot")
    rollback(workspace, Address(scenario.dataset, "pilot"), reason="loss went up")
    entry = workspace.catalog.history(scenario.dataset, "pilot")[-1]
    revocation = revoke(workspace, Address(scenario.dataset, leaving), "runbook", reason="the wrong page")
    return [
        version_events.withdrawal_event(workspace, entry),
        version_events.revocation_event(workspace, revocation),
    ]


def test_evidence_that_ends_is_told_once(scenario: EventScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    gates = {"pilot": {"require": [{"freshness": {"warn": "20h", "fail": "24h"}}]}}
    run(pilot_to_production, scenario.spec(gates=gates), targets=["pilot"], **scenario.on)
    later = now() + timedelta(hours=18)
    monkeypatch.setattr("prefect_stagegate.jobs.review.status.now", lambda: later)
    for _ in range(2):
        run(stage, scenario.spec(gates=gates), **scenario.on)
    told = [event for event in scenario.events(0) if event["event"] == "stagegate.evidence.ending"]
    (payload,) = [event["payload"] for event in told]
    assert (payload["target"], payload["check"], payload["turn"]) == ("pilot", "freshness", "data (team@example.org)")
    assert payload["command"].startswith(f"stagegate check {scenario.dataset}@sha256:")


def test_payloads_have_the_keys_that_the_docs_show(scenario: EventScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_FREE_WARNING", "100%")
    run(pilot_to_production, scenario.spec(), **scenario.on)
    with pytest.raises(Exception, match="refused"):
        pilot_to_production(scenario.spec(runbook=None), **scenario.on)

    full = events_about(f"stagegate.cache.{os.uname().nodename}{scenario.on['cache']}", 1)
    shown = {event["event"]: set(event["payload"]) for event in [*scenario.events(5), *full]}
    # Of these, their own tests look at what the server has.
    made = [*version_events.ending_events([an_ending()]), *taken_back(scenario)]
    shown |= {event.name: set(event.payload) for event in made}

    assert shown.items() <= examples().items()
    constants = [*vars(telling).values(), *vars(version_events).values()]
    assert shown.keys() == {name for name in constants if str(name).startswith("stagegate.")}


def test_a_cache_that_is_nearly_full_is_told_once_a_run(
    scenario: EventScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGEGATE_FREE_WARNING", "100%")

    @flow
    def twice_and_sweep() -> None:
        stage_dataset(scenario.spec(), **scenario.on)
        stage_dataset.submit(scenario.spec(), **scenario.on).wait()
        sweep.fn(**scenario.on)

    twice_and_sweep()
    resource = f"stagegate.cache.{os.uname().nodename}{scenario.on['cache']}"
    (event,) = events_about(resource)
    payload = event["payload"]
    assert payload["cache"] == str(scenario.on["cache"])
    assert payload["used"] + payload["free"] == payload["size"]
    assert payload["share"] == pytest.approx(payload["used"] / payload["size"], abs=1e-4)
    assert event["resource"]["stagegate.node"] == payload["node"] == os.uname().nodename

    sweep(**scenario.on)
    assert len(events_about(resource)) == 2

    monkeypatch.setenv("STAGEGATE_FREE_WARNING", "0%")
    monkeypatch.setenv("STAGEGATE_FREE_FLOOR", "0%")
    sweep(**scenario.on)
    assert len(events_about(resource)) == 2


def test_staging_that_ran_out_of_space_emits_nearly_full(
    scenario: EventScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGEGATE_FREE_WARNING", "100%")

    with pytest.raises(Exception, match="selects no object"):
        stage(scenario.spec(sources=[{"url": str(scenario.nas), "include": ["*.none"]}]), **scenario.on)

    assert len(events_about(f"stagegate.cache.{os.uname().nodename}{scenario.on['cache']}", 1)) == 1


# ── assets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def key_of(version: Version) -> str:
    return f"stagegate://{version.dataset}@{version.digest.replace(':', '-')}"


def test_a_new_version_is_an_asset_with_its_sources_upstream(scenario: EventScenario) -> None:
    other = scenario.nas.parent / "other files"
    other.mkdir()
    (other / "last.csv").write_text("last")
    sources = [{"url": str(scenario.nas)}, {"url": f"{other.as_uri()}/", "into": "other/"}]

    version = stage(scenario.spec(sources=sources), **scenario.on)

    (made,) = events_about(key_of(version), 1)
    upstream = {f"file://{scenario.nas}", f"file://{scenario.nas.parent}/other-files/"}
    assert made["event"] == "prefect.asset.materialization.succeeded"
    assert {
        resource["prefect.resource.id"] for resource in made["related"] if resource["prefect.resource.role"] == "asset"
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
    assert made["resource"]["prefect.resource.name"] == f"{scenario.dataset} {version.digest[:19]}"
    assert "team@example.org" in made["resource"]["prefect.asset.owners"]
    for source in upstream:
        assert [event["event"] for event in events_about(source, 1)] == ["prefect.asset.referenced"]


def test_a_staging_that_finds_nothing_new_materializes_nothing(scenario: EventScenario) -> None:
    version = stage(scenario.spec(), **scenario.on)
    again = stage(scenario.spec(), **scenario.on)
    brought = stage(version.address, **scenario.on)

    assert (again.digest, brought.digest) == (version.digest, version.digest)
    assert len(events_about(key_of(version))) == 1
    assert len(events_about(f"file://{scenario.nas}")) == 1


@pytest.mark.parametrize("new", [True, False])
def test_what_is_made_of_a_version_has_it_upstream(scenario: EventScenario, new: bool) -> None:
    if not new:
        stage_dataset.fn(scenario.spec(), **scenario.on)
    model = f"s3://models/{scenario.dataset}"

    @materialize(model)
    def train(version: Version) -> str:
        return version.digest

    @flow
    def nightly() -> None:
        train(stage_dataset(scenario.spec(), **scenario.on))

    nightly()

    (made,) = events_about(model, 1)
    head = stage_dataset.fn(scenario.spec(), **scenario.on)
    assert made["event"] == "prefect.asset.materialization.succeeded"
    assert related(made)["asset"] == key_of(head)


def test_what_is_made_of_a_required_version_has_it_upstream(scenario: EventScenario) -> None:
    spec = scenario.spec(gates={"pilot": GATES["pilot"]})
    accepted: Decision = run(pilot_to_production, spec, targets=["pilot"], **scenario.on)
    model = f"s3://models/{scenario.dataset}"

    @materialize(model)
    def train(version: Version) -> str:
        return version.digest

    @flow
    def nightly() -> None:
        train(require_ready(f"{scenario.dataset}@pilot", **scenario.on))

    nightly()

    (made,) = events_about(model, 1)
    assert related(made)["asset"] == f"stagegate://{scenario.dataset}@{accepted.digest.replace(':', '-')}"


# ── artifacts ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_has_one_artifact_for_each_decision(scenario: EventScenario) -> None:
    decision: Decision = run(pilot_to_production, scenario.spec(), **scenario.on)

    waiting, promoted = (artifact(f"{scenario.dataset}-{target}-decision") for target in ("production", "pilot"))
    screen, _, whole = waiting["data"].partition("\n---\n")
    assert "waits for approval to go to production" in screen.splitlines()[0]
    assert f"`stagegate approve {scenario.dataset}@{decision.digest} --to production`" in screen
    assert "<li>approval: waiting" in whole
    assert f"names {decision.digest[:19]}" in promoted["data"].splitlines()[0]
    assert "## The decision that accepted it" in promoted["data"]
    assert waiting["task_run_id"]
    keys = {document["key"].removeprefix(scenario.dataset) for document in artifacts_of(waiting["flow_run_id"])}
    assert keys == {"-stage", "-pilot-decision", "-production-decision"}


def test_a_report_that_can_not_be_kept_fails_no_check(
    scenario: EventScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "reports").write_text("not a folder")
    monkeypatch.setenv("STAGEGATE_REPORTS", str(tmp_path / "reports"))

    decided: Decision = run(pilot_to_production, scenario.spec(), **scenario.on)

    assert decided.target == "production"
    assert "Could not keep the HTML report" in caplog.text
    assert "Report as a page" not in artifact(f"{scenario.dataset}-production-decision")["data"]


def test_an_api_that_fails_fails_no_staging(
    scenario: EventScenario, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise httpx.ConnectError("the API is gone")

    monkeypatch.setattr("prefect.artifacts.Artifact.create", broken)
    monkeypatch.setattr("prefect_stagegate.tasks._support.run_progress.ProgressArtifact.create", broken)
    monkeypatch.setattr("prefect_stagegate.tasks._support.notify.emit_event", broken)
    monkeypatch.setattr("prefect_stagegate.tasks._support.assets.Asset", broken)

    decided = pilot_to_production(scenario.spec(), **scenario.on)

    assert isinstance(decided, Decision)
    assert open_workspace(**scenario.on).cache.refs.of(scenario.dataset)["pilot"] == decided.digest
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
    scenario: EventScenario,
    seaweedfs: SeaweedFS,
    slow: FaultProxy,
    prefect_at: Callable[[str], AbstractContextManager[None]],
) -> None:
    bucket = seaweedfs.bucket("telling-progress")
    seaweedfs.client().pipe({f"{bucket}/{number:02}.bin": bytes(50_000) for number in range(18)})
    spec = scenario.spec(sources=[{"url": bucket, "options": {"endpoint_url": slow.url}}])

    with CallCounter(PREFECT_API_URL.value()) as counter:
        with prefect_at(counter.url):
            begun = time.monotonic()
            stage(spec, **scenario.on)
            lasted = time.monotonic() - begun
            shown = [call for call in counter.calls if "/artifacts/" in call.path]
            last = artifact(f"{scenario.dataset}-stage")
            counter.calls.clear()
            stage(spec, **scenario.on)
        again = [call for call in counter.calls if "/artifacts/" in call.path]

    assert run_progress.INTERVAL == 2.0
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
        few, many = pool.map(lambda files: counted(files, tmp_path), (10, 1_000))

    assert len(task_runs_of(few[0])) == len(task_runs_of(many[0])) == 1
    timed = ("/artifacts/", "/logs/")  # what is sent at intervals, and so more often in a longer run
    steady = [
        Counter(str(call) for call in calls if not any(part in call.path for part in timed)) for _, calls in (few, many)
    ]
    assert steady[0] == steady[1]
    longer = many[1][-1].at - many[1][0].at
    assert len(many[1]) <= len(few[1]) + 2 + len(timed) * longer / 2
