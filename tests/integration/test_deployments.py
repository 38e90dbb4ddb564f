"""`deployments/README.md` and what it deploys, on a real Prefect server with a worker for each pool.

The page's commands are typed into a terminal in their order. Only addresses and folders are exchanged.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from prefect_stagegate.catalog.gate_records import read_answers, read_requests
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.model import Approval
from prefect_stagegate.testing.servers import free_port
from prefect_stagegate.workspace import Workspace
from tests.support.http_servers import Handler, http_server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
"""Long waits cost nothing on a machine that has nothing else to do, where the whole takes less than a minute."""

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]
PAGE = (ROOT / "deployments/README.md").read_text().split("\n## ")[1]
"""The ten minutes."""
INSTALLED = "deployments/install.sh"
"""Commands with this word are left out: `test_images.py` runs them."""


class Terminal:
    """A shell that keeps its variables and its jobs from one block of commands to the next."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._blocks = folder, 0
        self.log = folder / "terminal.log"
        with self.log.open("wb") as output:
            self._bash = subprocess.Popen(
                ["bash", "-o", "pipefail"],
                env=environment,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def type(self, commands: str, seconds: float = 180) -> str:
        """Run commands and return what they said; fail with it when one of them fails."""
        self._blocks += 1
        block, ended = (self._folder / f"block-{self._blocks}.{what}" for what in ("sh", "ended"))
        block.write_text(f"set -e\n{commands}")
        before = self.log.stat().st_size
        assert self._bash.stdin
        self._bash.stdin.write(f". {block} </dev/null; touch {ended}\n")
        self._bash.stdin.flush()
        eventually(lambda: ended.exists() or self._bash.poll() is not None, seconds)
        said = self.log.read_bytes()[before:].decode()
        assert ended.exists(), f"{commands}\n{said}"
        return said

    def close(self) -> None:
        """End the shell and everything that was started in it."""
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._bash.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()


class Receiver:
    """Somebody's webhook: keeps what it is sent."""

    def __init__(self) -> None:
        messages: list[dict[str, str]] = []

        class Receiving(Handler):
            def do_POST(self) -> None:
                messages.append(json.loads(self.read_body()))
                self.respond(200)

        self.messages = messages
        self._running = ExitStack()
        self.url = self._running.enter_context(http_server(Receiving))

    def close(self) -> None:
        self._running.close()


class Platform:
    """A platform engineer's machine, whose folders and addresses stand for those of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.receiver, port = folder, Receiver(), free_port()
        self._exchanged = {
            "http://127.0.0.1:4200": f"http://127.0.0.1:{port}",
            "https://hooks.example.org": self.receiver.url,
            "/opt/stagegate/bin": str(Path(sys.executable).parent),
            **{
                path: f"{folder}{path}"
                for path in ("/etc/stagegate", "/srv/stagegate", "/var/cache/stagegate", "/tmp/")
            },
        }
        # The scheduled staging is not to start while one is started by hand, which it would cancel.
        self.minute = (time.localtime().tm_min + 30) % 60
        self.api = f"http://127.0.0.1:{port}/api"
        shutil.copytree(ROOT / "deployments", folder / "deployments", ignore=shutil.ignore_patterns("__pycache__"))
        file = folder / "deployments/prefect.yaml"
        file.write_text(self.here(file.read_text()).replace('cron: "7 *', f'cron: "{self.minute} *'))
        (folder / "tmp").mkdir()
        own = {
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_UI_ENABLED": "false",
            "COLUMNS": "200",
        }
        self.terminal = Terminal(folder, {**os.environ, **own})

    def here(self, text: str) -> str:
        """A text of the page with this machine's folders and addresses."""
        places = "|".join(map(re.escape, self._exchanged))
        return re.sub(places, lambda match: self._exchanged[match[0]], text)

    def follow(self, steps: range) -> str:
        """Type the commands of some of the page's numbered steps; returns what they said."""
        said = ""
        for number in steps:
            (step,) = re.findall(rf"^\*\*{number}\. .*?(?=^\*\*\d|\Z)", PAGE, re.MULTILINE | re.DOTALL)
            for block in re.findall(r"^```console\n(.*?)^```", step, re.MULTILINE | re.DOTALL):
                lines = [line for line in block.splitlines() if not line.startswith(INSTALLED)]
                said += self.terminal.type(self.here("\n".join(lines) + "\n"))
        return said

    def ask(self, path: str, **body: Any) -> Any:
        return self._call("POST", path, body).json()

    def _call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        def answer() -> httpx.Response | None:  # a server error when another writer has the database for too long
            said = httpx.request(method, f"{self.api}{path}", json=body, timeout=30)
            return None if said.is_server_error else said.raise_for_status()

        answered: httpx.Response = eventually(answer)
        return answered

    def deployments(self) -> dict[str, dict[str, Any]]:
        flows = {flow["id"]: flow["name"] for flow in self.ask("/flows/filter")}
        return {
            f"{flows[deployment['flow_id']]}/{deployment['name']}": deployment
            for deployment in self.ask("/deployments/filter")
        }

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Runs that somebody or an event asked for, the oldest first."""
        wanted = {"id": {"any_": [self.deployments()[deployment]["id"]]}}
        runs = self.ask("/flow_runs/filter", deployments=wanted, sort="EXPECTED_START_TIME_ASC")
        return [run for run in runs if not run["auto_scheduled"]]

    def run_named(self, deployment: str, state: str) -> dict[str, Any] | None:
        return next((run for run in self.runs(deployment) if run["state_name"] == state), None)

    def run_about(self, deployment: str, digest: str, state: str) -> dict[str, Any] | None:
        about = f"nycflights@{digest}"
        return next(
            (
                run
                for run in self.runs(deployment)
                if (run["parameters"].get("version"), run["state_name"]) == (about, state)
            ),
            None,
        )

    def scheduled(self, deployment: str, state: str) -> list[dict[str, Any]]:
        """The runs that the clock started and that ended so."""
        wanted = {"id": {"any_": [self.deployments()[deployment]["id"]]}}
        runs = self.ask("/flow_runs/filter", deployments=wanted, flow_runs={"state": {"type": {"any_": [state]}}})
        return [run for run in runs if run["auto_scheduled"]]

    @contextmanager
    def every(self, seconds: int, deployment: str) -> Iterator[None]:
        """Let the clock start a deployment that often."""
        path = f"/deployments/{self.deployments()[deployment]['id']}/schedules"
        (made,) = self._call("POST", path, [{"active": True, "schedule": {"interval": seconds}}]).json()
        try:
            yield
        finally:
            self._call("DELETE", f"{path}/{made['id']}")

    def staged(self) -> list[dict[str, Any]]:
        """What was told of new versions."""
        wanted = {"event": {"name": ["stagegate.version.staged"]}}
        events: list[dict[str, Any]] = self.ask("/events/filter", filter=wanted)["events"]
        return events

    def transferred(self) -> set[str]:
        """The runs that moved bytes, and so showed their progress."""
        shown = self.ask("/artifacts/filter", artifacts={"key": {"any_": ["nycflights-stage"]}})
        return {event["flow_run_id"] for event in shown}

    def approvals(self, digest: str) -> list[Approval]:
        """Who answered about a version."""
        catalog = self.node("pilot").catalog
        requests = [
            request for request in read_requests(catalog, "nycflights", "production") if request.digest == digest
        ]
        return [given for request in requests for given in read_answers(catalog, request)]

    def deliver(self, flights: str) -> None:
        Path(self.here("/srv/stagegate/delivery/flights.csv")).write_text(flights)

    def node(self, pool: str) -> Workspace:
        cache = self.here(f"/var/cache/stagegate/{pool}")
        return open_workspace(Path(cache), self.here("/srv/stagegate/catalog"))

    def head(self, ref: str) -> str:
        entry = self.node("pilot").catalog.ref("nycflights", ref)
        return entry.digest if entry else ""

    def close(self) -> None:
        self.terminal.close()
        self.receiver.close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """What there is after the page's steps 1 to 6: a server, pools, alerts, a dataset, its deployments; no workers."""
    platform = Platform(tmp_path_factory.mktemp("platform"))
    try:
        platform.follow(range(1, 7))
        yield platform
    finally:
        platform.close()


# ── what is deployed ────────────────────────────────────────────────────────────────────────────────────────────


def test_every_deployment_of_the_file_is_there_in_its_pool(platform: Platform) -> None:
    deployed = platform.deployments()

    assert {name: deployment["work_pool_name"] for name, deployment in deployed.items()} == {
        "stagegate-stage/nycflights": "pilot",
        "stagegate-pilot-to-production/nycflights": "pilot",
        "stagegate-refresh/nycflights": "production",
        "stagegate-sweep/node": "production",
        "stagegate-watch/catalog": "pilot",
    }
    assert len(DEPLOYMENTS) == len(deployed)
    assert all(deployment["entrypoint"].startswith("prefect_stagegate.flows.") for deployment in deployed.values())
    assert [deployment["pull_steps"] or [] for deployment in deployed.values()] == [[]] * len(
        deployed
    )  # no worker fetches code


def test_the_scheduler_makes_runs_by_the_clock_of_a_place(platform: Platform) -> None:
    stage = platform.deployments()["stagegate-stage/nycflights"]
    (schedule,) = stage["schedules"]
    assert (schedule["active"], schedule["schedule"]["timezone"]) == (True, "Europe/Berlin")

    wanted = {"id": {"any_": [stage["id"]]}}
    coming = eventually(lambda: platform.ask("/flow_runs/filter", deployments=wanted, limit=5))

    assert coming
    assert all(
        run["auto_scheduled"] and int(run["next_scheduled_start_time"][14:16]) == platform.minute for run in coming
    )


def second_run(platform: Platform, deployment: str) -> dict[str, Any]:
    """What the server says to a worker that would start a second run while one is running."""
    path = f"/deployments/{platform.deployments()[deployment]['id']}/create_flow_run"
    first, second = (platform.ask(path, state={"type": "SCHEDULED"})["id"] for _ in range(2))
    for state in ("PENDING", "RUNNING"):
        assert platform.ask(f"/flow_runs/{first}/set_state", state={"type": state})["status"] == "ACCEPT"
    answer: dict[str, Any] = platform.ask(f"/flow_runs/{second}/set_state", state={"type": "PENDING"})
    for run in (first, second):  # so that no worker takes it
        platform.ask(f"/flow_runs/{run}/set_state", state={"type": "CANCELLED"}, force=True)
    return answer


def test_staging_that_runs_is_not_joined_by_the_next_hours(platform: Platform) -> None:
    answer = second_run(platform, "stagegate-stage/nycflights")

    assert answer["status"] == "REJECT"
    assert answer["state"]["type"] == "CANCELLED"


@pytest.mark.parametrize("flow", ["stagegate-pilot-to-production", "stagegate-refresh"])
def test_two_promotions_are_never_at_once_and_none_is_lost(platform: Platform, flow: str) -> None:
    answer = second_run(platform, f"{flow}/nycflights")

    assert answer["status"] == "REJECT"
    assert (answer["state"]["type"], answer["state"]["name"]) == ("SCHEDULED", "AwaitingConcurrencySlot")


def test_deploying_again_adds_nothing_twice(platform: Platform) -> None:
    def things() -> tuple[list[str], list[str], int]:
        automations = sorted(automation["name"] for automation in platform.ask("/automations/filter"))
        schedules = sum(len(deployment["schedules"]) for deployment in platform.deployments().values())
        return automations, sorted(platform.deployments()), schedules

    before = things()
    assert {"stagegate: gate failed", "stagegate: approval requested", "stagegate: cache nearly full"} < set(before[0])

    platform.follow(range(6, 7))

    assert things() == before


def test_kubernetes_template_refuses_an_unknown_variable(platform: Platform) -> None:
    file = "deployments/kubernetes/base-job-template.json"
    platform.terminal.type(f"prefect work-pool create gpus --type kubernetes --base-job-template {file}\n")

    held = httpx.get(f"{platform.api}/work_pools/gpus", timeout=10).json()["base_job_template"]
    template = json.loads((ROOT / file).read_text())
    assert held["job_configuration"]["job_manifest"] == template["job_configuration"]["job_manifest"]

    del template["variables"]["properties"]["gpus"]
    pool = {"name": "typo", "type": "kubernetes", "base_job_template": template}
    refused = httpx.post(f"{platform.api}/work_pools/", json=pool, timeout=10)
    assert (refused.status_code, "gpus" in refused.text) == (422, True)


# ── what runs ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_leads_from_a_first_staging_to_production(platform: Platform) -> None:
    promotion = "stagegate-pilot-to-production/nycflights"

    said = platform.follow(range(7, 9))

    digest = platform.head("latest")
    suspended = eventually(lambda: platform.run_named(promotion, "Suspended"))
    assert suspended, said
    assert suspended["parameters"]["version"] == f"nycflights@{digest}"
    assert (platform.head("pilot"), platform.head("production")) == (digest, "")

    said = platform.follow(range(9, 10))

    assert eventually(lambda: platform.head("production") == digest), said
    at_production = platform.node("production").cache.refs
    assert eventually(lambda: at_production.of("nycflights").get("production") == digest), (
        platform.terminal.log.read_text()
    )

    said = platform.follow(range(10, 11))

    assert digest in said
    assert "stagegate-refresh" in said
    assert "complete on 2 of 2 nodes\n  pilot-1  " in said


def test_a_refused_delivery_calls_people_and_leaves_every_ref(platform: Platform) -> None:
    before = platform.head("pilot"), platform.head("production")
    assert all(before), "the page's steps came first"
    spec = Path(platform.here("/etc/stagegate/nycflights.yaml"))
    spec.write_text(re.sub(r"^runbook: .*\n", "", spec.read_text(), flags=re.MULTILINE))
    platform.deliver("origin,dep_delay\nLGA,1\n")

    platform.terminal.type("prefect deployment run stagegate-stage/nycflights --watch\n")

    def messages_about(what: str) -> list[dict[str, str]]:
        return [message for message in platform.receiver.messages if what in message["title"]]

    (message,) = eventually(lambda: messages_about("is refused"))
    assert message["title"] == "nycflights is refused for pilot"
    assert f"stagegate check nycflights@{platform.head('latest')} --gate pilot" in message["text"]
    assert "runbook" in message["text"]
    assert (platform.head("pilot"), platform.head("production")) == before != (platform.head("latest"),) * 2
    (request,) = messages_about("waits for approval to go to production")  # of the version that the page brings there
    assert f"stagegate approve nycflights@{before[1]} --to production" in request["text"]


def test_scheduled_staging_promotes_only_what_was_approved(platform: Platform) -> None:
    stage, promotion = "stagegate-stage/nycflights", "stagegate-pilot-to-production/nycflights"
    before, first = platform.head("production"), platform.head("latest")
    spec = Path(platform.here("/etc/stagegate/nycflights.yaml"))
    spec.write_text(spec.read_text() + "runbook: https://wiki.example.org/nycflights\n")
    platform.deliver("origin,dep_delay\nJFK,40\n")

    with platform.every(10, stage):
        assert eventually(lambda: platform.head("latest") != first)
        wanted = platform.head("latest")
        # It goes on by itself, and two of its runs that find nothing new transfer nothing and say nothing.
        assert eventually(lambda: len(platform.scheduled(stage, "COMPLETED")) > 2)
        assert len({run["id"] for run in platform.scheduled(stage, "COMPLETED")} & platform.transferred()) == 1
        assert [event["payload"]["version"] for event in platform.staged()].count(f"nycflights@{wanted}") == 1
        suspended = eventually(lambda: platform.run_about(promotion, wanted, "Suspended"))
        platform.deliver("origin,dep_delay\nJFK,41\n")
        assert eventually(lambda: platform.head("latest") != wanted)
    newer = platform.head("latest")
    assert (platform.head("production"), platform.scheduled(stage, "FAILED")) == (before, [])

    answer = {"decision": "approve", "name": "platform@example.org", "reason": "seen the report"}
    platform.ask(f"/flow_runs/{suspended['id']}/resume", run_input=answer)

    assert eventually(lambda: platform.head("production") == wanted), platform.terminal.log.read_text()
    assert eventually(lambda: platform.run_about(promotion, newer, "Suspended"))
    assert (platform.head("production"), platform.head("latest")) == (wanted, newer)
    (given,) = platform.approvals(wanted)
    assert (given.approver.name, given.approver.source, given.reason) == (
        *("platform@example.org", "prefect-form"),
        "seen the report",
    )


def test_a_cache_that_is_nearly_full_calls_people_once_a_day(platform: Platform) -> None:
    def tell(node: str) -> None:
        payload = {
            "node": node,
            "cache": "/cache",
            "used": 92 * 10**9,
            "free": 8 * 10**9,
            "size": 10**11,
            "share": 0.92,
        }
        resource = {"prefect.resource.id": f"stagegate.cache.{node}/cache"}
        event = {"event": "stagegate.cache.nearly_full", "resource": resource, "payload": payload}
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        httpx.post(f"{platform.api}/events", json=[{**event, "occurred": moment, "id": str(uuid4())}], timeout=10)

    tell("gpu-1")
    tell("gpu-1")
    tell("gpu-2")

    def told() -> list[dict[str, str]]:
        # The nodes of the page say the same where the test's own disk is nearly full.
        return [message for message in platform.receiver.messages if "cache of gpu-" in message["title"]]

    eventually(lambda: len(told()) > 1)
    time.sleep(1)
    assert sorted(message["title"] for message in told()) == [
        f"The cache of {node} is nearly full" for node in ("gpu-1", "gpu-2")
    ]
    assert "8.0 GB of 100.0 GB are free" in told()[-1]["text"]
