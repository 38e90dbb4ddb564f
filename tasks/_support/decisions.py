"""Show a decision at the run, and keep its page."""

from __future__ import annotations

from prefect.artifacts import MarkdownArtifact

from prefect_stagegate.jobs.gating.reports import keep_report, page_of
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.show import Report, to_artifact
from prefect_stagegate.tasks._support.notify import attach, unfailing


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
    attach(MarkdownArtifact(key=key, markdown=to_artifact(report, links), description=report.headline))
