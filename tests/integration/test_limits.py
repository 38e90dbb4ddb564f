"""Concurrency limits on a real Prefect server: who waits, who doesn't, and the command that sets them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from zlib import crc32

import httpx
import pytest
from prefect import State, flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.cli.app import main
from prefect_stagegate.errors import Cancelled, StagegateError
from prefect_stagegate.flows import stage
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.model import Version
from prefect_stagegate.tasks import astage_dataset
from prefect_stagegate.tasks._support import slots
from prefect_stagegate.tasks._support.slots import node_limit, set_limits, source_limit
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.usefixtures("prefect_server")

ABOUT = re.compile(r"\b(fetched|lease|slots?|limits?)\b", re.IGNORECASE)
"""Words that only lines of a run about the staging have; a run's own name may be of a sloth."""
Run = Callable[..., CompletedProcess[str]]
PATIENCE = 30.0
"""Seconds that the fetches of one dataset wait at most for another to come, or to be kept waiting."""


class LimitedNode:
    """A node of a name of its own, and datasets that come from one bucket."""

    def __init__(self, folder: Path, bucket: str, server: SeaweedFS, proxy: FaultProxy) -> None:
        self.on: dict[str, Any] = {"cache": folder / "cache", "catalog": folder / "catalog"}
        self.node = node_limit(bucket)
        self.source = source_limit(f"s3://{bucket}/one/")
        self.url = server.bucket(bucket)
        self.server, self.proxy = server, proxy
        self.met, self.go = threading.Event(), threading.Event()

    def spec(self, dataset: str, files: int = 2) -> dict[str, Any]:
        self.server.client().pipe({f"{self.url}/{dataset}/{number}": b"data" for number in range(files)})
        options = {"endpoint_url": self.proxy.url}
        return {"stagegate": 1, "dataset": dataset, "sources": [{"url": f"{self.url}/{dataset}/", "options": options}]}

    def let_meet(self) -> None:
        """Hold each fetch until two datasets are fetched at the same time, which `met` tells, or until `go`."""
        fetching: Counter[str] = Counter()

        def fetched(fetch: Any) -> None:
            dataset = fetch.path.split("/")[2]
            fetching[dataset] += 1
            if len(+fetching) > 1:
                self.met.set()
                self.go.set()
            self.go.wait(PATIENCE)
            fetching[dataset] -= 1

        self.proxy.break_with(fetched)


@pytest.fixture
def node(
    tmp_path: Path, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[LimitedNode]:
    bucket = f"limits-{crc32(request.node.name.encode())}"
    monkeypatch.setenv("STAGEGATE_NODE", bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    with FaultProxy(seaweedfs.endpoint_url) as proxy:
        yield LimitedNode(tmp_path, bucket, seaweedfs, proxy)


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [done.result() for done in [pool.submit(copy_context().run, job) for job in jobs]]


def run(*args: Any, **parameters: Any) -> State[Any]:
    of: Any = stage
    state: State[Any] = of(*args, **parameters, return_state=True)
    return state


def lines(count: int, *states: State[Any]) -> list[str]:
    """The lines that runs and their tasks logged about bytes, slots and limits, once there are `count` of them."""
    until = time.monotonic() + 15
    while True:
        wanted = {"flow_run_id": {"any_": [str(state.state_details.flow_run_id) for state in states]}}
        answer = httpx.post(f"{PREFECT_API_URL.value()}/logs/filter", json={"logs": wanted}, timeout=10)
        messages: list[str] = [line["message"] for line in answer.raise_for_status().json()]
        ours = [line for line in messages if ABOUT.search(line)]
        if len(ours) >= count or time.monotonic() > until:
            return ours
        time.sleep(0.1)


def active_slots(name: str) -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(name).active_slots


# ── waiting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_limit_of_one_makes_two_stagings_take_turns(node: LimitedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [node.spec(dataset) for dataset in ("one", "two")]
    node.let_meet()
    at_once(*(lambda spec=spec: stage(spec, **node.on) for spec in specs))
    assert node.met.is_set()

    set_limits({node.source: 1})
    node.met.clear()
    node.go.clear()
    look = slots._try

    def looked(*args: Any) -> float | None:
        if (pause := look(*args)) is not None:
            node.go.set()
        return pause

    monkeypatch.setattr(slots, "_try", looked)
    elsewhere = {**node.on, "cache": node.on["cache"].parent / "elsewhere"}
    states = at_once(*(lambda spec=spec: run(spec, **elsewhere) for spec in specs))

    assert [state.is_completed() for state in states] == [True, True]
    assert not node.met.is_set()
    assert active_slots(node.source) == 0
    messages = [line for line in lines(4, *states) if "slot of" in line]
    assert [line.split(" after ")[0].partition(",")[0] for line in messages] == [
        f"Waiting for a free slot of {node.source}",
        f"Got a slot of {node.source}",
    ]


def test_a_wait_ends_with_an_error_that_names_the_limit(node: LimitedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_SLOT_WAIT", "2.5")
    spec = node.spec("one")
    set_limits({node.node: 0})
    begun = time.monotonic()

    with pytest.raises(StagegateError, match=rf"No slot of {node.node} became free in 2 s.*stagegate limits"):
        stage(spec, **node.on)

    assert 2.5 <= time.monotonic() - begun < 10
    assert not node.proxy.requests
    set_limits({node.node: 1})
    assert stage(spec, **node.on).files == 2


def test_async_task_waits_for_a_slot_without_blocking_the_loop(
    node: LimitedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGEGATE_SLOT_WAIT", "2.5")
    spec = node.spec("one")
    set_limits({node.source: 0})
    ticks = []

    @flow
    async def mine() -> None:
        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.1)

        ticking = asyncio.create_task(tick())
        try:
            await astage_dataset(spec, **node.on)
        finally:
            ticking.cancel()

    with pytest.raises(StagegateError, match="No slot"):
        asyncio.run(mine())
    assert len(ticks) > 10


def test_a_wait_can_be_given_up(node: LimitedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "in_a_run", lambda: True)
    set_limits({node.node: 0})
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    begun = time.monotonic()

    with pytest.raises(Cancelled), slots.admit(read_spec(node.spec("one")), cancel):
        pass

    assert time.monotonic() - begun < 2


@pytest.fixture
def terminations() -> Iterator[None]:
    """Treat SIGTERM as Prefect does in the process of a flow run."""

    def raise_termination(number: int, frame: Any) -> None:
        raise TerminationSignal(signal=number)

    before = signal.signal(signal.SIGTERM, raise_termination)
    yield
    signal.signal(signal.SIGTERM, before)


def test_terminated_run_releases_its_slot_or_stops_waiting(
    node: LimitedNode, terminations: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = node.spec("one")
    held: list[int] = []
    here = copy_context()  # where the API's address is known

    def end(_: Any) -> None:
        held.append(here.run(active_slots, node.node))
        os.kill(os.getpid(), signal.SIGTERM)
        node.proxy.wait(10)

    set_limits({node.node: 1})
    node.proxy.break_with(lambda fetch: end(fetch) if not held else None)
    with pytest.raises(TerminationSignal):
        stage(spec, **node.on)
    assert held == [1]
    assert active_slots(node.node) == 0

    set_limits({node.node: 0})
    look = slots._try

    def looked(*args: Any) -> float | None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return look(*args)

    monkeypatch.setattr(slots, "_try", looked)
    monkeypatch.setattr(slots, "PAUSE", (30.0, 30.0))
    begun = time.monotonic()
    with pytest.raises(TerminationSignal):
        stage(spec, **node.on)
    assert time.monotonic() - begun < 15


# ── not waiting ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_absent_limits_cost_one_call_and_log_nothing(node: LimitedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    ask = SyncPrefectClient.request

    def counted(self: SyncPrefectClient, method: Any, path: Any, *args: Any, **options: Any) -> Any:
        calls.append(path)
        return ask(self, method, path, *args, **options)

    monkeypatch.setattr(SyncPrefectClient, "request", counted)
    for dataset, files in (("one", 2), ("two", 60)):
        calls.clear()
        state = run(node.spec(dataset, files), **node.on)

        assert state.is_completed()
        assert [path for path in calls if "concurrency" in path] == ["/v2/concurrency_limits/filter"]
        assert ["fetched" in line for line in lines(1, state)] == [True]


def test_only_a_version_that_is_fetched_waits_for_a_slot(node: LimitedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    version: Version = stage(node.spec("one"), **node.on)
    monkeypatch.setenv("STAGEGATE_SLOT_WAIT", "1")
    set_limits({node.source: 0})

    assert stage(version.address, **node.on).digest == version.digest
    with pytest.raises(StagegateError, match="No slot"):
        stage(version.address, **{**node.on, "cache": node.on["cache"].parent / "elsewhere"})


def test_a_limit_that_is_disabled_holds_nothing_up(node: LimitedNode) -> None:
    set_limits({node.node: 0})
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(node.node, GlobalConcurrencyLimitUpdate(active=False))

    assert stage(node.spec("one"), **node.on).files == 2
    assert set_limits({node.node: 3})[0].active is False


def test_the_command_is_no_run_and_waits_for_nobody(node: LimitedNode, run_stagegate: Run, tmp_path: Path) -> None:
    set_limits({node.node: 0})
    spec = tmp_path / "one.json"
    spec.write_text(json.dumps(node.spec("one")))

    assert run_stagegate("stage", spec, env={"PREFECT_API_URL": str(PREFECT_API_URL.value())}).returncode == 0


def test_an_api_that_fails_holds_no_transfer_up_and_ends_none(
    node: LimitedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits({node.node: 1})
    node.proxy.break_with(lambda _: time.sleep(1))
    gone = httpx.ConnectError("the API is gone")

    def broken(*args: Any, **options: Any) -> Any:
        raise gone

    monkeypatch.setattr("prefect.concurrency._leases._RENEWAL_MAX_ATTEMPTS", 1)
    monkeypatch.setattr(SyncPrefectClient, "renew_concurrency_lease", broken)
    monkeypatch.setattr("prefect.concurrency._sync.release_concurrency_slots_with_lease", broken)
    not_renewed = run(node.spec("one"), **node.on)
    monkeypatch.setattr(SyncPrefectClient, "read_global_concurrency_limits", broken)
    not_asked = run(node.spec("two"), **node.on)

    assert [state.is_completed() for state in (not_renewed, not_asked)] == [True, True]
    output = "\n".join(lines(5, not_renewed, not_asked))
    for said in ("lease renewal failed", "released some minutes late", "limits are ignored: the API is gone"):
        assert said in output


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_are_short_safe_and_apart() -> None:
    deep = [source_limit(f"/mnt/{'deep/' * 30}{leaf}/") for leaf in ("a", "b")]
    assert deep[0] != deep[1]
    assert max(map(len, deep)) <= 90
    assert source_limit(f"/mnt/{'deep/' * 30}a") == deep[0]
    assert source_limit("sftp://me:secret@nas.example.org/data/") == "stagegate-source-sftp-nas.example.org"
    assert source_limit("/mnt/nas/Größe & Maß/") == "stagegate-source-file-mnt-nas-gr-e-ma"


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_limits_command_creates_changes_and_is_idempotent(
    node: LimitedNode, run_stagegate: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "one.json"
    spec.write_text(json.dumps(node.spec("one")))
    gpu = node_limit("limits-gpu")

    def limits(*words: str) -> list[tuple[str, int, int | None]]:
        main(["limits", *words, "--json"])
        return [(limit["name"], limit["limit"], limit["before"]) for limit in json.loads(capsys.readouterr().out)]

    both = (str(spec), "--per-source", "4", "--per-node", "1", "--node", "limits-gpu")
    for words in ((*both, "--dry-run"), both):
        assert limits(*words) == [(gpu, 1, None), (node.source, 4, None)]
    assert limits(*both) == [(gpu, 1, 1), (node.source, 4, 4)]
    assert limits("--per-node", "2") == [(node.node, 2, None)]
    env = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    output = run_stagegate("limits", spec, "--per-source", "2", env=env).stdout
    assert output == f"   2  {node.source}  (was 4)\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no limit to set"),
        (("--per-source", "1"), "belong together"),
        (("s.yaml", "--per-node", "1"), "belong together"),
        (("s.yaml", "--per-source", "1", "--node", "gpu-1"), "--node needs --per-node"),
        (("--per-node", "-1"), "Must be >= 0"),
        (("absent.yaml", "--per-source", "1"), "does not exist"),
    ],
)
def test_a_command_that_would_set_less_than_was_meant_is_refused(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["limits", *words])
    assert (caught.value.code, said in capsys.readouterr().err) == (2, True)


def test_an_api_that_does_not_answer_is_an_error_that_says_so(run_stagegate: Run) -> None:
    result = run_stagegate("limits", "--per-node", "1", env={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert result.returncode == 3
    assert "stagegate: Concurrency limits can't be read or set by Prefect's API" in result.stderr
    assert "PREFECT_API_URL" in result.stderr
    assert "Traceback" not in result.stderr
