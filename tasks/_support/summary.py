"""The page of a decision that a tired person reads at the run, and the whole report behind it."""

from __future__ import annotations

from prefect.artifacts import MarkdownArtifact

from prefect_stagegate.operations.gating.reports import keep_report
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import Report, to_summary
from prefect_stagegate.tasks._support.notify import attach, unfailing


def artifact_key(report: Report) -> str:
    """What the keys of a decision's artifacts begin with; a trial's take no decision's place."""
    return f"{report.dataset}-{report.target}{'-trial' if report.is_trial else ''}"


def show_summary(workspace: Workspace, report: Report) -> str:
    """Show the summary at the run, in place of an earlier one about the same target.

    Returns:
        Where a browser finds the whole report; empty when it is not kept.
    """
    page = ""
    with unfailing("keep the HTML report"):
        page = keep_report(workspace, report)
    key, markdown = f"{artifact_key(report)}-summary", to_summary(report, page=page)
    attach(MarkdownArtifact(key=key, markdown=markdown, description=report.headline))
    return page
