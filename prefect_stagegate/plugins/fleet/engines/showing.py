"""Show a fleet's result: an artifact with a row for each node, and the state of the run."""

from __future__ import annotations

from typing import Any

from prefect import State
from prefect.artifacts import MarkdownArtifact
from prefect.states import Failed

from prefect_stagegate.errors import NotReady
from prefect_stagegate.plugins.fleet.barrier import NAMED, FleetResult, NodeReport
from prefect_stagegate.show.legible import legible_text
from prefect_stagegate.tasks._support.notify import announce, attach, run_log
from prefect_stagegate.tasks._support.version_events import EVENT_TEXT, VersionEvent, version_event
from prefect_stagegate.units import bytes_text, count_text

NOT_READY = "Fleet not ready"
"""The name of the state of a run whose policy was not met."""
FLEET_INCOMPLETE = "stagegate.fleet.incomplete"
"""Nodes of a fleet were not ready at the barrier. Payload: version, dataset, digest, ready, required, missing, nodes
(node, outcome, problem)."""
ROWS = 200
"""The most nodes that the artifact has a row of, those that are missing first."""


def end_fleet(result: FleetResult) -> FleetResult | State[FleetResult]:
    """Show the result, and give it; or the failed state where the policy isn't met. Calling the flow raises that."""
    attach(MarkdownArtifact(key=f"{result.dataset}-fleet", markdown=fleet_page(result), description=result.headline))
    if result.missing:
        announce(fleet_event(result))
    if result.is_met:
        run_log().info("%s", result.text)
        return result
    hint = "A node that is ready answers at once the next time. `stagegate nodes` shows what each node last said."
    error = NotReady(result.text, hint=hint, dataset=result.dataset)
    return Failed(name=NOT_READY, message=legible_text(str(error)), data=error)


def fleet_event(result: FleetResult) -> VersionEvent:
    """The event of a fleet some of whose nodes were not ready."""
    nodes = [
        {"node": report.node, "outcome": report.outcome.value, "problem": report.problem[:EVENT_TEXT]}
        for report in result.missing[:NAMED]
    ]
    payload: dict[str, Any] = {"target": result.ref} if result.ref else {}
    payload |= {"ready": len(result.ready), "required": result.required, "missing": len(result.missing)}
    return version_event(FLEET_INCOMPLETE, result.dataset, result.digest, **payload, nodes=nodes)


def fleet_page(result: FleetResult) -> str:
    """A table of the nodes, as Markdown."""
    rows = [*result.missing, *result.ready]
    lines = [result.headline, "", "| node | outcome | files | bytes | hashed | fetched | seconds | problem |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---|", *map(_row, rows[:ROWS])]
    if len(rows) > ROWS:
        lines += ["", f"and {count_text(len(rows) - ROWS, 'node')} more"]
    return "\n".join(lines)


def _row(report: NodeReport) -> str:
    sizes = map(bytes_text, (report.bytes, report.hashed, report.fetched))
    problem = legible_text(report.problem).replace("|", "\\|").replace("\n", " ")
    outcome = f"{report.outcome}{', ref moved' if report.flipped else ''}"
    cells = (report.node, outcome, f"{report.files:,}", *sizes, f"{report.seconds:.1f}", problem)
    return f"| {' | '.join(cells)} |"
