"""A fleet's engine runs one job on each node; `collect_reports` waits for all of them, for a bounded time.

    engine      module           a node is                                      its sign of life
    pool        pool.py          a worker of a Prefect work pool, with a queue  the worker's heartbeats
    dask        dask.py          a named worker of a Dask cluster               the scheduler's list of workers
    ray         ray.py           a Ray node with a resource of its name         Ray's list of nodes

`flows/stage_fleet.py` opens the one that the user named, `rounds.py` has the two rounds of jobs, and `showing.py` shows
the result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from prefect_stagegate.errors import Cancelled, SourceUnavailable, StagegateError
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.fleet.barrier import NodeOutcome, NodeReport, checked_report
from prefect_stagegate.plugins.fleet.flows.stage_on_node import stage_on_node
from prefect_stagegate.plugins.fleet.node import Proof
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import run_log, unfailing
from prefect_stagegate.tasks._support.running import engine_task
from prefect_stagegate.units import count_text

PAUSE = (0.5, 5.0)
"""The first and the longest time between two looks at the nodes, in seconds."""
SILENCE = 120.0
"""Seconds for which an engine may fail to answer, while nodes go on with their jobs."""
ANSWER_SECONDS = 10
"""How long an engine may take for one answer, where its client has no limit of its own."""


@dataclass(frozen=True, slots=True)
class NodeJob:
    """What one node is to do: hold a version, or move its copy of a ref to a version that it holds."""

    dataset: str
    digest: str
    ref: str = ""
    """The ref to move; empty to bring and prove the version."""
    proof: Proof = Proof.HASH
    fleet: bool = False
    """Whether the catalog lists nodes that fetch the same version now."""

    @property
    def name(self) -> str:
        """What it does, in a run's name."""
        return f"move {self.dataset}@{self.ref}" if self.ref else f"hold {self.dataset}"

    def parameters(self) -> dict[str, Any]:
        """The parameters of `stage_on_node`, as JSON allows them."""
        version = f"{self.dataset}@{self.digest}"
        return {"version": version, "ref": self.ref, "proof": self.proof.value, "fleet": self.fleet}


class FleetEngine(Protocol):
    """Runs jobs on nodes. Every method may raise `StagegateError` for what concerns all nodes."""

    def nodes(self) -> list[str]:
        """The names of the nodes that the engine knows."""

    def start(self, jobs: Mapping[str, NodeJob]) -> None:
        """Start a job on each node."""

    def poll(self) -> Iterable[tuple[str, NodeReport]]:
        """Nodes whose jobs ended since the last call, or that are lost by now, with their reports. Answers soon.

        Raises:
            SourceUnavailable: The engine can't be reached; it is asked again for a while.
        """

    def cancel(self, nodes: Iterable[str]) -> None:
        """Stop the jobs of these nodes, and let none start later. Doesn't wait for their end."""


@engine_task(lambda parameters: _run_name(parameters["jobs"]))
def collect_reports(engine: FleetEngine, jobs: Mapping[str, NodeJob], timeout: float) -> list[NodeReport]:
    """Run a job on each node, and wait until each reported, is lost, or the time is over.

    Args:
        engine: Runs them.
        jobs: The job of each node.
        timeout: Seconds for all of it.

    Returns:
        One report a node. Jobs without one are cancelled, and their nodes lost.

    Raises:
        Cancelled: The run must end; the jobs were cancelled.
        StagegateError: The engine could not start them, or can't be reached any more; the jobs were cancelled.
    """
    waiting, reports, pause = set(jobs), [], PAUSE[0]
    deadline = time.monotonic() + timeout
    try:
        with ending() as cancel:
            engine.start(jobs)
            answered = time.monotonic()
            while waiting and time.monotonic() < deadline:
                try:
                    for node, report in engine.poll():
                        if node in waiting:
                            waiting.discard(node)
                            reports.append(_taken(node, report, jobs[node]))
                    answered = time.monotonic()
                except SourceUnavailable:
                    # A server that restarts must not end a staging of hours.
                    if time.monotonic() - answered > SILENCE:
                        raise
                if waiting:
                    _pause(cancel, min(pause, max(0.0, deadline - time.monotonic())))
                    pause = min(PAUSE[1], pause * 1.5)
        late = f"no report within {timeout:.0f} s"
        reports.extend(_taken(node, lost(node, late), jobs[node]) for node in sorted(waiting))
    finally:
        # Also after a lost node's report: a job that starts later would only be in the way of the next run's.
        if unended := waiting | {report.node for report in reports if report.outcome is NodeOutcome.LOST}:
            # Not in the way of the error that ends the round.
            with unfailing("cancel the jobs of nodes without a report"):
                engine.cancel(sorted(unended))
    return reports


def _run_name(jobs: Mapping[str, NodeJob]) -> str:
    """What the jobs do, and on how many nodes: `hold nycflights on 3 nodes`."""
    job = next(iter(jobs.values()))
    return f"{job.name} on {count_text(len(jobs), 'node')}"


def lost(node: str, problem: str) -> NodeReport:
    """The report of a node that can't report."""
    return NodeReport(node, NodeOutcome.LOST, problem=problem)


def failed(node: str, problem: str) -> NodeReport:
    """The report of a node whose job ended with an error."""
    return NodeReport(node, NodeOutcome.FAILED, problem=problem)


def run_job(job: NodeJob) -> NodeReport:
    """Do this node's part where no flow run wraps it, on Dask's and on Ray's workers; an error becomes a report."""
    try:
        return stage_on_node.fn(**job.parameters())
    except StagegateError as error:
        return failed(Settings.from_environment(os.environ).node, str(error))


def _taken(node: str, report: NodeReport, job: NodeJob) -> NodeReport:
    """Check a node's report, and log what is wrong as soon as it is known."""
    report = checked_report(report, node, job.digest)
    if report.outcome is not NodeOutcome.READY:
        run_log().warning("%s: %s: %s", report.node, report.outcome, report.problem)
    return report


def _pause(cancel: Event, seconds: float) -> None:
    if cancel.wait(seconds):
        raise Cancelled("Staging the fleet was stopped; no further ref moves, and what the nodes fetched stays")
