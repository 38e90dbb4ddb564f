"""Both rounds over real caches: on which nodes the ref moves under each policy, and what becomes of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import Cancelled, NotReady, SourceUnavailable, StagegateError, UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.barrier import FleetResult, NodeOutcome, NodeReport
from prefect_stagegate.plugins.fleet.engines import fleet_engine as loop
from prefect_stagegate.plugins.fleet.engines import rounds
from prefect_stagegate.plugins.fleet.engines.fleet_engine import NodeJob, failed, lost
from prefect_stagegate.plugins.fleet.node import flip_ref, hold_version
from prefect_stagegate.plugins.fleet.nodes import put_node
from prefect_stagegate.plugins.fleet.own_record import publish_record
from prefect_stagegate.tasks._support.cancelling import requested
from prefect_stagegate.workspace import Workspace
from tests.support.scenario import Scenario

NODES = ("node-a", "node-b", "node-c")


class ThreadEngine:
    """Runs each node's job in a thread, over a cache of the node's own.

    Args:
        scenario: Has the catalog.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.does: dict[str, Callable[[NodeJob], NodeReport | None]] = {}
        """What a node does in place of its job; None stands for a node that never answers."""
        self.started: list[tuple[str, str]] = []
        self.cancelled: list[str] = []
        self._futures: dict[str, Any] = {}
        self._pool = ThreadPoolExecutor(len(NODES))

    def workspace(self, node: str) -> Workspace:
        workspace = self.scenario.node(cache=node)
        return replace(workspace, settings=replace(workspace.settings, node=node))

    def ref(self, node: str) -> str | None:
        return self.workspace(node).cache.refs.get(self.scenario.dataset, "latest")

    def nodes(self) -> list[str]:
        return list(NODES)

    def start(self, jobs: Mapping[str, NodeJob]) -> None:
        self.started += [(node, job.ref) for node, job in jobs.items()]
        self._futures = {node: self._pool.submit(self._run, node, job) for node, job in jobs.items()}

    def poll(self) -> Iterator[tuple[str, NodeReport]]:
        for node, future in list(self._futures.items()):
            if future.done() and (report := future.result()) is not None:
                del self._futures[node]
                yield node, report

    def cancel(self, nodes: Iterable[str]) -> None:
        self.cancelled += nodes

    def _run(self, node: str, job: NodeJob) -> NodeReport | None:
        if node in self.does:
            return self.does[node](job)
        try:
            if job.ref:
                return flip_ref(self.workspace(node), job.dataset, job.ref, job.digest)
            return hold_version(self.workspace(node), Address(job.dataset, job.digest), proof=job.proof)
        except StagegateError as error:
            return failed(node, str(error))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ThreadEngine:
    monkeypatch.setattr(rounds, "collect_reports", loop.collect_reports.fn)  # without a Prefect server
    monkeypatch.setattr(loop, "PAUSE", (0.02, 0.05))
    scenario = Scenario(tmp_path)
    scenario.deliver("first")
    return ThreadEngine(scenario)


def run(engine: ThreadEngine, policy: Any = "all", ref: str = "latest", timeout: float = 20) -> FleetResult:
    """Both rounds, as the flow runs them."""
    on = engine.scenario.on
    fleet = rounds.plan_fleet(engine.nodes(), f"{engine.scenario.dataset}@{ref}", None, None, policy, **on)
    result = rounds.bring_to_nodes(engine, fleet, "hash", timeout)
    if fleet.ref and result.is_met:
        result = rounds.move_on_nodes(engine, fleet, result, timeout, **on)
    return result


def moved(engine: ThreadEngine) -> list[str]:
    """The nodes on which the ref names the version."""
    return [node for node in NODES if engine.ref(node) == engine.scenario.head("latest")]


def outcomes(result: FleetResult) -> dict[str, str]:
    return {report.node: report.outcome.value for report in result.reports}


def test_ref_moves_on_all_nodes_and_again_without_harm(engine: ThreadEngine) -> None:
    first, again = run(engine), run(engine)

    assert first.is_met
    assert moved(engine) == [*NODES]
    assert [report.fetched for report in first.reports] == [5, 5, 5]
    assert [report.fetched for report in again.reports] == [0, 0, 0]
    assert engine.cancelled == []


@pytest.mark.parametrize(
    ("policy", "met", "on"),
    [
        ("all", False, []),
        ({"quorum": 3}, False, []),
        ({"quorum": 2}, True, ["node-a", "node-c"]),
        ("best_effort", True, ["node-a", "node-c"]),
    ],
)
def test_ref_moves_where_the_policy_says(engine: ThreadEngine, policy: Any, met: bool, on: list[str]) -> None:
    engine.does["node-b"] = lambda _: lost("node-b", "its worker is gone")
    result = run(engine, policy)

    assert (result.is_met, moved(engine)) == (met, on)
    assert outcomes(result)["node-b"] == "lost"
    assert "node-b: lost: its worker is gone" in result.text
    assert engine.cancelled == ["node-b"]


def test_best_effort_without_any_node_is_not_met(engine: ThreadEngine) -> None:
    engine.does = dict.fromkeys(NODES, lambda _: lost("x", "gone"))

    assert not run(engine, "best_effort").is_met


def test_silent_node_is_lost_after_the_time_and_cancelled(engine: ThreadEngine) -> None:
    engine.does["node-b"] = lambda _: None
    result = run(engine, timeout=4)

    assert not result.is_met
    assert "node-b: lost: no report within 4 s" in result.text
    assert engine.cancelled == ["node-b"]
    assert moved(engine) == []


def test_node_whose_bytes_differ_does_not_get_the_ref(engine: ThreadEngine) -> None:
    engine.does["node-b"] = lambda _: NodeReport("node-b", NodeOutcome.READY, "sha256:" + "0" * 64)
    result = run(engine, {"quorum": 2})

    assert moved(engine) == ["node-a", "node-c"]
    assert outcomes(result)["node-b"] == "failed"


def test_node_lost_between_the_rounds_fails_the_policy(engine: ThreadEngine) -> None:
    def dies_at_the_move(job: NodeJob) -> NodeReport | None:
        if job.ref:
            return lost("node-b", "its worker is gone")
        return hold_version(engine.workspace("node-b"), Address(job.dataset, job.digest))

    engine.does["node-b"] = dies_at_the_move
    result = run(engine)
    assert not result.is_met
    assert moved(engine) == ["node-a", "node-c"]

    engine.does = {}
    assert run(engine).is_met
    assert moved(engine) == [*NODES]


def test_no_ref_moves_once_the_catalog_names_another(engine: ThreadEngine) -> None:
    def delivers_meanwhile(job: NodeJob) -> NodeReport:
        report = hold_version(engine.workspace("node-b"), Address(job.dataset, job.digest))
        (engine.scenario.nas / "more.csv").write_text("more")
        engine.scenario.stage()
        return report

    engine.does["node-b"] = delivers_meanwhile
    with pytest.raises(NotReady, match="may move"):
        run(engine)
    assert [engine.ref(node) for node in NODES] == [None, None, None]


def test_digest_is_brought_and_no_ref_moves(engine: ThreadEngine) -> None:
    result = run(engine, ref=engine.scenario.head("latest"))

    assert result.is_met
    assert moved(engine) == []
    assert {ref for _, ref in engine.started} == {""}


def test_nothing_starts_where_too_few_nodes_have_room(engine: ThreadEngine) -> None:
    full = engine.workspace("node-b")
    settings = replace(full.settings, max_size=1)
    record = publish_record(replace(full, settings=settings))
    put_node(full.catalog, replace(record, room=1, used=1))

    result = run(engine)
    assert not result.is_met
    assert "node-b: failed: no room" in result.text
    assert engine.started == []

    assert run(engine, {"quorum": 2}).is_met
    assert moved(engine) == ["node-a", "node-c"]


def test_node_that_holds_a_version_is_not_too_small_for_it(engine: ThreadEngine) -> None:
    """Files of the same bytes are one blob: they take less room than the version has bytes."""
    assert run(engine).is_met
    workspace = engine.workspace("node-b")
    record = publish_record(workspace)
    put_node(workspace.catalog, replace(record, room=0, used=1))

    assert run(engine).is_met


def test_cancelled_fleet_cancels_its_nodes_and_moves_no_ref(engine: ThreadEngine) -> None:
    end = threading.Event()
    engine.does["node-b"] = lambda _: None
    threading.Timer(1.0, end.set).start()
    token = requested.set(end)
    begun = time.monotonic()
    try:
        with pytest.raises(Cancelled):
            run(engine, timeout=60)
    finally:
        requested.reset(token)
    assert time.monotonic() - begun < 30
    assert "node-b" in engine.cancelled
    assert moved(engine) == []


class AwayEngine(ThreadEngine):
    """Can't be reached from the first look at its nodes on, for some looks."""

    away = 0

    def poll(self) -> Iterator[tuple[str, NodeReport]]:
        self.away -= 1
        if self.away >= 0:
            raise SourceUnavailable("The scheduler does not answer")
        yield from super().poll()


def test_engine_that_is_away_for_a_moment_loses_no_node(engine: ThreadEngine) -> None:
    away = AwayEngine(engine.scenario)
    away.away = 5
    assert run(away).is_met


def test_engine_that_stays_away_ends_the_round(engine: ThreadEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SILENCE", 0.3)
    away = AwayEngine(engine.scenario)
    away.away = 10**6
    with pytest.raises(SourceUnavailable):
        run(away)
    assert away.cancelled == [*NODES]
    assert moved(away) == []


def test_fleet_without_that_version_is_refused(engine: ThreadEngine) -> None:
    with pytest.raises(UsageError):
        run(engine, ref="production")
