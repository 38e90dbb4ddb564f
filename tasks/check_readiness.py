"""`check_readiness`: ask a gate whether a version may go where it leads."""

from __future__ import annotations

from itertools import islice
from typing import Any

from prefect.artifacts import LinkArtifact, MarkdownArtifact, TableArtifact

from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.operations.address import SpecLike
from prefect_stagegate.operations.check import check
from prefect_stagegate.operations.reports import report_of
from prefect_stagegate.report import Report, Turn, to_markdown
from prefect_stagegate.tasks.cancelling import ending
from prefect_stagegate.tasks.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks.running import async_twin, engine_task, spoken
from prefect_stagegate.tasks.summary import show_summary
from prefect_stagegate.tasks.telling import GATE_FAILED, GATE_PASSED, announce, attach, run_log
from prefect_stagegate.tasks.verdict import checks_table

EVENT_CHECKS = 50
"""The most checks that an event names: what decided first."""
EVENT_TEXT = 300
"""The most characters of a sentence in an event."""

_EVENTS = {
    DecisionOutcome.ACCEPTED: GATE_PASSED,
    DecisionOutcome.REFUSED: GATE_FAILED,
    DecisionOutcome.INCONCLUSIVE: GATE_FAILED,
}
"""A decision that waits for somebody has neither passed nor failed yet."""


@engine_task(lambda parameters: f"check {spoken(parameters['dataset'])} for {parameters['gate']}")
def check_readiness(
    dataset: SpecLike, gate: str, *, spec: SpecLike | None = None, cache: CacheLike = None, catalog: CatalogLike = None
) -> Decision:
    """Gather the evidence that a gate requires and that is missing or stale, decide, and record the decision.

    A refusal is an answer and raises nothing: see `.accepted`. The run shows a summary, the report and the table of
    checks; with STAGEGATE_REPORTS it links to the report's HTML page too.

    Args:
        dataset: `nycflights`, `nycflights@pilot`, `nycflights@sha256:…`, or a spec, which means the `latest` of its
            dataset. Without a ref: the version that the gate below accepted, else `latest`.
        gate: The target's name.
        spec: A spec to try instead of the adopted policy: a trial, of which nothing is recorded and nothing counts.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: There is no such version, or the spec has no such gate.
    """
    where = open_places(cache, catalog)
    with ending() as cancel:
        decision = check(where, dataset, gate, spec=spec, cancel=cancel)
    report = report_of(where, decision)
    _show(decision, report, show_summary(where, report))
    if decision.outcome in _EVENTS:
        announce(_EVENTS[decision.outcome], decision.dataset, decision.digest, **_payload(report))
    return decision


acheck_readiness = async_twin(check_readiness)


def _show(decision: Decision, report: Report, page: str) -> None:
    run_log().info("%s: %s", report.headline, report.reason)
    key, about = f"{report.dataset}-{report.target}", report.headline
    attach(MarkdownArtifact(key=f"{key}-gate", markdown=to_markdown(report), description=about))
    attach(TableArtifact(key=f"{key}-checks", table=checks_table(decision.checks), description=about))
    if page:
        attach(LinkArtifact(key=f"{key}-report", link=page, link_text=f"{about}: the whole report", description=about))


def _payload(report: Report) -> dict[str, Any]:
    """What the event says beyond the version, in no more than some kilobytes."""
    return {
        "target": report.target,
        "outcome": report.outcome.value,
        "reason": report.reason[:EVENT_TEXT],
        "turn": report.whose_turn[:EVENT_TEXT],
        "turns": [_turn(turn) for turn in report.turns],
        "checks": {row.check: row.outcome.value for row in islice(report.rows, EVENT_CHECKS)},
    }


def _turn(turn: Turn) -> dict[str, Any]:
    """Who has to see to what, for an automation that tells them."""
    return {
        "owner": turn.person.role,
        "contact": turn.person.contact[:EVENT_TEXT],
        "checks": list(turn.checks[:EVENT_CHECKS]),
        "fix": turn.fixes[0][:EVENT_TEXT] if turn.fixes else "",
    }
