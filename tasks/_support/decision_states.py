"""A decision as the state of a run, and as the artifact that shows it there."""

from __future__ import annotations

from collections.abc import Iterator

from prefect import State
from prefect.artifacts import MarkdownArtifact
from prefect.states import Completed, Failed

from prefect_stagegate.errors import GateFailed, GateUndecided
from prefect_stagegate.jobs.review.reports import keep_report, page_of
from prefect_stagegate.model import Decision, DecisionOutcome, Outcome
from prefect_stagegate.show import Report, document_of, to_artifact
from prefect_stagegate.show.legible import legible_text, one_line
from prefect_stagegate.show.next_steps import deciding_checks
from prefect_stagegate.show.rows import name_repeats
from prefect_stagegate.tasks._support.notify import attach, unfailing
from prefect_stagegate.tasks._support.refusals import GATE_REFUSED, GATE_UNDECIDED, ended_by_gate
from prefect_stagegate.tasks._support.running import answered
from prefect_stagegate.workspace import Workspace

FINDINGS = 5
"""The most findings of one check that an error's message names; the report has all of them."""
NOT_APPROVED = "Not approved"
"""The name of the state of a run whose version somebody declined, or nobody approved in time."""
FINE = (Outcome.PASS, Outcome.WAIVED, Outcome.NOT_APPLICABLE)


def not_accepted(decision: Decision) -> State[Decision]:
    """The failed state of a run whose version a gate did not accept, with a short table of the reasons."""
    refused = decision.outcome is DecisionOutcome.REFUSED
    verb = "refused" if refused else "can't decide about"
    headline = f"The gate {decision.target} {verb} {decision.dataset}@{decision.digest}"
    kind = GateFailed if refused else GateUndecided
    return ended_by_gate(kind("\n".join([headline, *_lines(decision)]), dataset=decision.dataset), _in_short(decision))


def as_answered(decision: Decision) -> Decision:
    """The decision as the result of a task's run, which shows a refusal as one."""
    if decision.outcome in (DecisionOutcome.ACCEPTED, DecisionOutcome.WAITING):
        return decision
    name = GATE_REFUSED if decision.outcome is DecisionOutcome.REFUSED else GATE_UNDECIDED
    return answered(decision, name, _in_short(decision))


def _in_short(decision: Decision) -> str:
    """Which checks kept the gate from accepting, in one line."""
    verb = "refused" if decision.outcome is DecisionOutcome.REFUSED else "not decided"
    why = decision.declined or deciding_checks(decision) or "no check applied"
    return legible_text(one_line(f"{verb} by {decision.target}: {why}; see the artifact"))


def waiting(decision: Decision) -> State[Decision]:
    """The state of a run whose request for an approval is recorded and has no answer yet.

    It is completed, since nothing failed. The answer may take days, and counts whether a process waits for it or not.
    The state's name and the decision that the flow returns distinguish it from a promotion.
    """
    version = f"{decision.dataset}@{decision.digest}"
    return Completed(
        name="Waiting for approval",
        message=f"`stagegate approve {version} --to {decision.target}` answers; then run this flow again with "
        f"version={version}",
        data=decision,
    )


def not_approved(decision: Decision) -> State[Decision]:
    """The failed state of a run whose version somebody declined, with who and why. Calling the flow raises it."""
    why = legible_text(one_line(decision.declined))
    message = f"{decision.dataset}@{decision.digest} is not approved for {decision.target}: {why}"
    return Failed(name=NOT_APPROVED, message=message, data=GateFailed(message, dataset=decision.dataset))


def _lines(decision: Decision) -> Iterator[str]:
    for evidence in name_repeats(decision.checks):
        if evidence.outcome in FINE:
            continue
        summary = legible_text(evidence.full_summary)
        yield f"  {evidence.outcome.value:<12}  {evidence.check:<14}  {summary}  [{evidence.owner}]"
        for finding in evidence.findings[:FINDINGS]:
            yield f"      {legible_text(finding.subject)}: {legible_text(finding.problem)}"
        if len(evidence.findings) > FINDINGS:
            yield f"      … and {len(evidence.findings) - FINDINGS} more"


def decision_key(dataset: str, target: str, *, is_trial: bool = False) -> str:
    """The key of the artifact of a target's decisions and promotions; trials have one of their own."""
    return f"{dataset}-{target}-{'trial' if is_trial else 'decision'}"


def show_decision(workspace: Workspace, report: Report) -> None:
    """Show a decision at the run, in place of an earlier one about the same target."""
    # The artifact links to the page, so keep the page first.
    page = ""
    with unfailing("keep the HTML report"):
        page = keep_report(workspace, report)
    key = decision_key(report.dataset, report.target, is_trial=report.is_trial)
    links = {"Report as a page": page, "This version": page_of(workspace, report.dataset, report.digest)}
    links["Runbook"] = report.runbook
    attach(MarkdownArtifact(key=key, markdown=to_artifact(document_of(report), links), description=report.headline))
