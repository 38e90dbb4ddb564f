"""Show a decision's summary at the run, and keep the whole report."""

from __future__ import annotations

from prefect.artifacts import MarkdownArtifact

from prefect_stagegate.operations.gating.reports import keep_report
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import Report, to_summary
from prefect_stagegate.tasks._support.notify import attach, unfailing


def artifact_key(report: Report) -> str:
    """The beginning of the keys of a decision's artifacts; a trial has keys of its own."""
    return f"{report.dataset}-{report.target}{'-trial' if report.is_trial else ''}"


def show_summary(workspace: Workspace, report: Report) -> str:
    """Show the summary at the run, in place of an earlier one about the same target.

    Returns:
        The address of the whole report; empty when it is not kept.
    """
    # The summary links to the report, so keep the report first.
    page = ""
    with unfailing("keep the HTML report"):
        page = keep_report(workspace, report)
    key, markdown = f"{artifact_key(report)}-summary", to_summary(report, page=page)
    attach(MarkdownArtifact(key=key, markdown=markdown, description=report.headline))
    return page
