"""Approval by people on a real Prefect server with a real worker: forms, commands, and what is promoted in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import State
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_stagegate.catalog.gate_records import read_answers, read_requests, read_waits
from prefect_stagegate.errors import GateFailed, UsageError
from prefect_stagegate.flows import pilot_to_production
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import (
    Address,
    Approval,
    ApprovalRequest,
    Decision,
    DecisionOutcome,
    Identity,
    Version,
    Wait,
)
from prefect_stagegate.tasks._support.waking import Woken, wake
from prefect_stagegate.testing.servers import free_port
from prefect_stagegate.workspace import Workspace
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)  # a server, a worker and five runs start with the first test

POOL = "people"
FLOW = "stagegate-pilot-to-production"
GATES = {
    "pilot": {"require": ["runbook"]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1}}]},
}
APPROVE = ("approve", "things", "--to", "production", "--identity", "ines", "--reason", "seen")
Command = Callable[..., subprocess.CompletedProcess[str]]
PREFECT = str(Path(sys.executable).with_name("prefect"))


@contextmanager
def running(*command: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Platform:
    """A Prefect server with its services, a deployment of the flow, and a worker that runs it as `ada`."""

    def __init__(self, url: str, deployment: str) -> None:
        self.url, self._deployment = url, deployment

    def ask(self, path: str, **body: Any) -> Any:
        def said() -> httpx.Response | None:
            answer = httpx.post(f"{self.url}{path}", json=body, timeout=30)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer  # its SQLite was busy

        answer: httpx.Response = eventually(said)
        return answer.raise_for_status().json()

    def start(self, **parameters: Any) -> str:
        run = self.ask(f"/deployments/{self._deployment}/create_flow_run", parameters=parameters)
        return str(run["id"])

    def run(self, run: str) -> dict[str, Any]:
        run_record: dict[str, Any] = httpx.get(f"{self.url}/flow_runs/{run}", timeout=30).raise_for_status().json()
        return run_record

    def reaches(self, run: str, *states: str, form: str = "") -> str:
        """Wait until the run is in one of these states; returns the key of the form that it waits with, another one.

        A run stores its form after it is suspended, the description last.
        """

        def look() -> dict[str, Any]:
            state: dict[str, Any] = self.run(run)["state"]
            if state["name"] in states:
                another = not form or state["state_details"]["pause_key"] != form
                asks = state["name"] != "Suspended" or self._input(run, "description").is_success
                return state if another and asks else {}
            ended = state["type"] in ("FAILED", "CRASHED", "COMPLETED")
            return state if ended and "never resumed" not in (state["message"] or "") else {}  # that gets its name yet

        state = eventually(look)
        assert state, self.log(run)
        assert state["name"] in states, f"{state}\n{self.log(run)}"
        return str(state["state_details"]["pause_key"])

    def log(self, run: str) -> str:
        lines = self.ask("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC")
        return "\n".join(line["message"] for line in lines)

    def summary(self, run: str, target: str) -> str:
        """What the run's page about a target says last."""
        wanted = {"flow_run_id": {"any_": [run]}, "key": {"any_": [f"things-{target}-decision"]}}
        (last, *_) = self.ask("/artifacts/filter", artifacts=wanted, sort="CREATED_DESC")
        return str(last["data"])

    def form(self, run: str, part: str) -> Any:
        """What the form that the run waits with shows: its `description` or its `schema`."""
        return self._input(run, part).raise_for_status().json()

    def _input(self, run: str, part: str) -> httpx.Response:
        key = self.run(run)["state"]["state_details"]["run_input_keyset"][part]
        return httpx.get(f"{self.url}/flow_runs/{run}/input/{key}", timeout=30)

    def answer(self, run: str, **form: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask(f"/flow_runs/{run}/resume", run_input=form)
        return answer


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder, port = tmp_path_factory.mktemp("platform"), str(free_port())
    url = f"http://127.0.0.1:{port}/api"
    own = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": url,
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "STAGEGATE_IDENTITY": "ada@example.org",
        "STAGEGATE_CACHE": str(folder / "cache"),
    }
    with ExitStack() as stack:
        server = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
        stack.enter_context(running(*server, log=folder / "server.log", **own))

        def healthy() -> bool:
            try:
                return httpx.get(f"{url}/health", timeout=5).is_success
            except httpx.HTTPError:
                return False

        assert eventually(healthy, 110), (folder / "server.log").read_text()
        here = Platform(url, "")
        here.ask("/work_pools/", name=POOL, type="process")
        flow = here.ask("/flows/", name=FLOW)
        deployment = here.ask(
            "/deployments/",
            name="approval",
            flow_id=flow["id"],
            work_pool_name=POOL,
            entrypoint="prefect_stagegate.flows.pilot_to_production:pilot_to_production",
            pull_steps=[],
        )
        worker = [PREFECT, "worker", "start", "--pool", POOL]
        stack.enter_context(running(*worker, log=folder / "worker.log", **own))
        yield Platform(url, deployment["id"])


class Dataset:
    """A dataset with a catalog of its own, and a source that tests change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.on: dict[str, Any] = {"cache": str(folder / "cache"), "catalog": str(folder / "catalog")}
        (folder / "nas").mkdir()
        self.deliver("first")

    def deliver(self, text: str) -> None:
        (self._folder / "nas/data.csv").write_text(text)

    def spec(self, **changes: Any) -> dict[str, Any]:
        spec = {"stagegate": 1, "dataset": "things", "runbook": "https://wiki.example.org/"}
        return {**spec, "sources": [{"url": str(self._folder / "nas")}], "gates": GATES, **changes}

    def node(self, who: str = "ada@example.org") -> Workspace:
        return open_workspace(**self.on, identity=Identity(who, "declared"))

    def head(self, ref: str) -> str:
        entry = self.node().catalog.ref("things", ref)
        return entry.digest if entry else ""

    def requests(self) -> list[ApprovalRequest]:
        return read_requests(self.node().catalog, "things", "production")

    def waits(self) -> list[Wait]:
        return [wait for request in self.requests() for wait in read_waits(self.node().catalog, request)]

    def environment(self, **more: str) -> dict[str, str]:
        """Where a command works."""
        return {"STAGEGATE_CACHE": self.on["cache"], "STAGEGATE_CATALOG": self.on["catalog"], **more}

    def waiting_version(self) -> str:
        return f"things@{self.requests()[-1].digest}"

    def answers(self) -> list[Approval]:
        catalog = self.node().catalog
        return [approval for request in self.requests() for approval in read_answers(catalog, request)]

    def to_pilot(self, text: str) -> Version:
        """Deliver, stage and promote to pilot, as another run meanwhile does."""
        self.deliver(text)
        version = stage(self.node(), self.spec())
        assert check(self.node(), Address("things", version.digest), "pilot").accepted
        promote(self.node(), Address("things", version.digest), "pilot")
        return version


Requested = dict[str, tuple[Dataset, str]]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


@pytest.fixture(scope="module")
def requested(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Requested:
    """Datasets with a run each that asked for approval; they start at once, since the start is what takes time."""
    names = ("form", "command", "both", "declined", "lapsed")
    datasets = {name: Dataset(tmp_path_factory.mktemp(name)) for name in names}
    runs = {
        name: (
            target,
            platform.start(spec=target.spec(), approval_timeout=1 if name == "lapsed" else 3600, **target.on),
        )
        for name, target in datasets.items()
    }
    for name, (_, run) in runs.items():
        platform.reaches(run, "Not approved" if name == "lapsed" else "Suspended")
    return runs


# ── by the form and by the command ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.system
def test_form_promotes_its_version_though_pilot_moved_on(platform: Platform, requested: Requested) -> None:
    dataset, run = requested["form"]
    form, version = platform.reaches(run, "Suspended"), dataset.head("pilot")
    shown = platform.form(run, "description")
    assert "things waits for approval to go to production" in shown
    assert f"things@{version[:19]}`" in shown
    summary = platform.summary(run, "production")
    assert "**Whose turn:** anybody, except ada@example.org, who asked" in summary
    assert "1. Resume this run" in summary
    assert "stagegate check" not in summary  # the run does that by itself
    assert set(platform.form(run, "schema")["properties"]) == {"decision", "name", "reason"}

    newer = dataset.to_pilot("second")
    platform.answer(run, decision="approve", name="Ada@example.org ", reason="my own")
    platform.reaches(run, "Suspended", form=form)
    assert "made the request and can't answer it" in platform.form(run, "description")
    assert not dataset.answers()

    platform.answer(run, decision="approve", name="ines", reason="seen")
    platform.reaches(run, "Completed")

    assert dataset.head("production") == version != newer.digest
    assert dataset.head("pilot") == newer.digest
    for target in ("pilot", "production"):
        assert f"things@{target} names {version[:19]}" in platform.summary(run, target)
    (request,), (given,) = dataset.requests(), dataset.answers()
    assert (request.requester.name, request.digest) == ("ada@example.org", version)
    assert (given.approver, given.approved, given.reason) == (Identity("ines", "prefect-form"), True, "seen")


@pytest.mark.system
def test_the_command_records_the_same_answer_and_wakes_the_run(
    platform: Platform, requested: Requested, run_stagegate: Command
) -> None:
    dataset, run = requested["command"]

    alone = run_stagegate(*APPROVE, env=dataset.environment())
    assert alone.returncode == 0, alone.stderr
    assert f"Flow run {run} was not resumed: PREFECT_API_URL is not set" in alone.stdout
    assert "The answer is recorded" in alone.stdout
    assert dataset.head("production") == ""

    woken = run_stagegate(*APPROVE, "--json", env=dataset.environment(PREFECT_API_URL=platform.url))
    assert woken.returncode == 0, woken.stderr
    assert json.loads(woken.stdout)["flow_runs"] == [{"flow_run": run, "resumed": True, "told": "was resumed"}]
    platform.reaches(run, "Completed")

    assert dataset.head("production") == dataset.head("pilot")
    (given,) = dataset.answers()
    assert (given.approver, given.approved, given.reason) == (Identity("ines", "declared"), True, "seen")
    with temporary_settings({PREFECT_API_URL: platform.url}):
        (ended,) = wake(dataset.waits(), given)
    assert ended == Woken(run, resumed=False, told="no longer waits, but is Completed")


@pytest.mark.system
def test_simultaneous_answers_of_one_person_are_recorded_once(
    platform: Platform, requested: Requested, run_stagegate: Command
) -> None:
    dataset, run = requested["both"]

    with ThreadPoolExecutor() as pool:
        typed = pool.submit(run_stagegate, *APPROVE, env=dataset.environment(PREFECT_API_URL=platform.url))
        time.sleep(0.1)  # about what the command takes to start
        platform.answer(run, decision="approve", name="Ines", reason="seen")

    assert typed.result().returncode == 0, typed.result().stderr
    platform.reaches(run, "Completed")
    assert len(dataset.answers()) == 1
    assert dataset.head("production") == dataset.head("pilot")


@pytest.mark.system
def test_decline_ends_all_waiting_runs_with_who_and_why(platform: Platform, requested: Requested) -> None:
    dataset, run = requested["declined"]
    other = platform.start(version=dataset.waiting_version(), **dataset.on)
    platform.reaches(other, "Suspended")
    assert len(dataset.requests()) == 1

    assert platform.answer(run, decision="perhaps", name="ines")["status"] == "REJECT"
    platform.answer(run, decision="decline", name="ines", reason="March looks wrong")
    for run_id in (run, other):
        platform.reaches(run_id, "Not approved")
        state = platform.run(run_id)["state"]
        assert state["type"] == "FAILED"
        assert state["message"].endswith("for production: ines (prefect-form) declined: March looks wrong")
    assert dataset.head("production") == ""


def test_answer_is_recorded_though_the_api_is_unreachable() -> None:
    waits = [Wait("r1", "00000000-0000-4000-8000-000000000000", "9999", "")]
    given = Approval("r1", Identity("ines", "declared"), approved=True, reason="", at="")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        (waiting,) = wake(waits, given)
    assert not waiting.resumed
    assert waiting.told.startswith("was not resumed: http://127.0.0.1:9/api did not answer")


# ── nobody answers ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.system
def test_unanswered_run_ends_and_its_retry_requests_again(platform: Platform, requested: Requested) -> None:
    dataset, run = requested["lapsed"]
    state, version = platform.run(run)["state"], dataset.head("pilot")
    assert (state["type"], state["message"][:24]) == ("FAILED", "Nobody answered in time,")
    with pytest.raises(UsageError, match=r"lapsed at .* records a new request"):
        approve(dataset.node("ines"), Address("things"), "production")
    assert platform.answer(run, decision="approve", name="ines")["status"] == "ABORT"

    dataset.deliver("second")
    platform.ask(f"/flow_runs/{run}/set_state", state={"type": "SCHEDULED", "name": "AwaitingRetry"}, force=True)
    assert eventually(lambda: len(dataset.waits()) > 1), platform.log(run)
    assert [request.digest for request in dataset.requests()] == [version, version]
    assert not dataset.answers()
    platform.reaches(run, "Not approved")


# ── without a deployment ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("prefect_server")
def test_approved_version_is_promoted_without_a_second_staging(dataset: Dataset) -> None:
    flow: Any = pilot_to_production
    state: State[Any] = flow(dataset.spec(), **dataset.on, return_state=True)
    decision: Decision = state.result()

    assert (state.name, state.is_completed()) == ("Waiting for approval", True)
    assert (decision.outcome, decision.target) == (DecisionOutcome.WAITING, "production")
    assert (dataset.head("pilot"), dataset.head("production")) == (decision.digest, "")

    approve(dataset.node("ines"), Address("things"), "production")
    dataset.deliver("a newer delivery that nobody was asked about")
    stage(dataset.node(), dataset.spec())
    answered: Decision = flow(version=f"things@{decision.digest}", **dataset.on)

    assert answered.accepted
    assert dataset.head("production") == decision.digest != dataset.head("latest")


@pytest.mark.usefixtures("prefect_server")
def test_a_declined_version_raises_in_the_caller_s_process(dataset: Dataset) -> None:
    flow: Any = pilot_to_production
    decision: Decision = flow(dataset.spec(), **dataset.on)
    approve(dataset.node("ines"), Address("things"), "production", approved=False, reason="March looks wrong")

    state: State[Any] = flow(version=f"things@{decision.digest}", **dataset.on, return_state=True)

    assert (state.name, state.is_failed()) == ("Not approved", True)
    with pytest.raises(GateFailed, match=r"ines \(declared\) declined: March looks wrong"):
        state.result()
