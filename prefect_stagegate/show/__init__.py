"""Reports of decisions for people: one model, and one module for each format or page."""

from prefect_stagegate.show.building import build_report
from prefect_stagegate.show.changes import ChangedFile, FileTotals, VersionChanges, count_changes
from prefect_stagegate.show.document import Section, VersionBeside, sections_of
from prefect_stagegate.show.expectations import by_table, cells, read_results
from prefect_stagegate.show.html import content_policy, to_html
from prefect_stagegate.show.json import json_values, to_json
from prefect_stagegate.show.junit import to_junit
from prefect_stagegate.show.markdown import to_markdown
from prefect_stagegate.show.model import Report
from prefect_stagegate.show.next_steps import Turn, reason_of
from prefect_stagegate.show.past_events import PastEvent
from prefect_stagegate.show.proposal import Proposal, proposal_page
from prefect_stagegate.show.ready import Candidate, Readiness, ready_page, ready_text
from prefect_stagegate.show.rows import Person, Row, Standing
from prefect_stagegate.show.summary import moved_page, to_artifact, to_summary
from prefect_stagegate.show.text import to_rich, to_text
from prefect_stagegate.show.validation_page import validation_page

__all__ = [
    "Candidate",
    "ChangedFile",
    "FileTotals",
    "PastEvent",
    "Person",
    "Proposal",
    "Readiness",
    "Report",
    "Row",
    "Section",
    "Standing",
    "Turn",
    "VersionBeside",
    "VersionChanges",
    "build_report",
    "by_table",
    "cells",
    "content_policy",
    "count_changes",
    "json_values",
    "moved_page",
    "proposal_page",
    "read_results",
    "ready_page",
    "ready_text",
    "reason_of",
    "sections_of",
    "to_artifact",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
    "to_rich",
    "to_summary",
    "to_text",
    "validation_page",
]
