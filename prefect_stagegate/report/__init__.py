"""Reports of decisions for people: one model, and one module for each format or page."""

from prefect_stagegate.report.coverage import CoveredGroup, TableCoverage, basis_text, cover, group_text, table_text
from prefect_stagegate.report.expectations import by_table, cells, read_results
from prefect_stagegate.report.html import to_html
from prefect_stagegate.report.json import to_json
from prefect_stagegate.report.junit import to_junit
from prefect_stagegate.report.markdown import to_markdown
from prefect_stagegate.report.model import Person, Report, Row, Standing, Turn, build_report, reason_of
from prefect_stagegate.report.proposal import FileTotals, Proposal, proposal_page
from prefect_stagegate.report.ready import Candidate, Readiness, ready_page, ready_text
from prefect_stagegate.report.rubric import rubric_lines, rubric_of
from prefect_stagegate.report.summary import moved_page, to_summary
from prefect_stagegate.report.tables import TableFigures, table_figures
from prefect_stagegate.report.text import to_rich, to_text

__all__ = [
    "Candidate",
    "CoveredGroup",
    "FileTotals",
    "Person",
    "Proposal",
    "Readiness",
    "Report",
    "Row",
    "Standing",
    "TableCoverage",
    "TableFigures",
    "Turn",
    "basis_text",
    "build_report",
    "by_table",
    "cells",
    "cover",
    "group_text",
    "moved_page",
    "proposal_page",
    "read_results",
    "ready_page",
    "ready_text",
    "reason_of",
    "rubric_lines",
    "rubric_of",
    "table_figures",
    "table_text",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
    "to_rich",
    "to_summary",
    "to_text",
]
