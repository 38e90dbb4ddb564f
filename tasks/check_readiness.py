"""`check_readiness`: ask a gate whether a version may go where it leads."""

from __future__ import annotations

from prefect.artifacts import MarkdownArtifact, TableArtifact

from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.operations.address import SpecLike, stored_spec
from prefect_stagegate.operations.check import check
from prefect_stagegate.report import Report, build_report, to_markdown
from prefect_stagegate.tasks.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks.running import async_twin, engine_task, spoken
from prefect_stagegate.tasks.telling import GATE_FAILED, GATE_PASSED, announce, attach, run_log
from prefect_stagegate.tasks.verdict import checks_table

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

    A refusal is an answer and raises nothing: see `.accepted`. The run shows the report and the table of checks.

    Args:
        dataset: `nycflights`, `nycflights@pilot`, `nycflights@sha256:…`, or a spec, which means the `latest` of its
            dataset. Without a ref: the version that the gate below accepted, else `latest`.
        gate: The target's name.
        spec: A spec to judge under instead of the one that is stored beside the version.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: There is no such version, or the spec has no such gate.
    """
    where = open_places(cache, catalog)
    decision = check(where, dataset, gate, spec=spec)
    _show(decision, build_report(decision, stored_spec(where, decision.dataset, decision.digest)))
    if decision.outcome in _EVENTS:
        outcomes = {answer.check: answer.outcome.value for answer in decision.checks}
        event = _EVENTS[decision.outcome]
        about = {"target": gate, "outcome": decision.outcome.value, "checks": outcomes}
        announce(event, decision.dataset, decision.digest, **about)
    return decision


acheck_readiness = async_twin(check_readiness)


def _show(decision: Decision, report: Report) -> None:
    run_log().info("%s: %s", report.headline, report.reason)
    key = f"{decision.dataset}-{decision.target}"
    attach(MarkdownArtifact(key=f"{key}-gate", markdown=to_markdown(report), description=report.headline))
    attach(TableArtifact(key=f"{key}-checks", table=checks_table(decision.checks), description=report.headline))
