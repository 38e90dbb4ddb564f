"""`check_readiness`: ask a gate whether a version may go to its target."""

from __future__ import annotations

from prefect_stagegate.jobs.address import SpecLike
from prefect_stagegate.jobs.gating.check import check_version, resolve_for_gate
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.model import Decision
from prefect_stagegate.show import Report
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.decision_states import as_answered, show_decision
from prefect_stagegate.tasks._support.notify import announce, run_log
from prefect_stagegate.tasks._support.running import (
    CacheLike,
    CatalogLike,
    async_twin,
    engine_task,
    open_places,
    short_name,
)
from prefect_stagegate.tasks._support.version_events import decision_events


@engine_task(lambda parameters: f"check {short_name(parameters['dataset'])} for {parameters['gate']}")
def check_readiness(
    dataset: SpecLike, gate: str, *, spec: SpecLike | None = None, cache: CacheLike = None, catalog: CatalogLike = None
) -> Decision:
    """Gather the evidence that a gate requires and that is missing or stale, decide, and record the decision.

    A refusal raises nothing: see `.accepted`. In a flow, the task's run then ends as "Gate refused" or "Gate
    undecided", and tasks that wait for it don't start. The run shows the decision as an artifact. A trial emits no
    event.

    Args:
        dataset: `nycflights`, `nycflights@pilot`, `nycflights@sha256:…`, or a spec, which means the `latest` of its
            dataset. Without a ref: the version that the gate below accepted, else `latest`.
        gate: The target's name.
        spec: A spec to try instead of the adopted policy. Nothing of such a trial is recorded, and it does not count.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: There is no such version, or the spec has no such gate.
    """
    workspace = open_places(cache, catalog)
    version, resolved_gate = resolve_for_gate(workspace, dataset, gate, spec)
    with ending() as cancel:
        decision = check_version(workspace, version, resolved_gate, cancel=cancel)
    report = report_of(workspace, decision, version.spec if version.is_trial else None)
    _log(decision, report)
    show_decision(workspace, report)
    if not version.is_trial:
        for event in decision_events(workspace, decision, report):
            announce(event)
    return as_answered(decision)


acheck_readiness = async_twin(check_readiness)


def _log(decision: Decision, report: Report) -> None:
    # A refusal is no error of the run, but somebody has to act on it: log a warning.
    log, turn = (run_log().info, "") if decision.accepted else (run_log().warning, f" Whose turn: {report.whose_turn}")
    log("%s. %s%s", report.headline, report.reason, turn)
