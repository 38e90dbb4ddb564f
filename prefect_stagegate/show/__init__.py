"""What people are shown: documents, the report of a decision, and the core's formats."""

from prefect_stagegate.show.artifacts import failed_document, promotion_document, proposal_document, validation_document
from prefect_stagegate.show.changes import FileTotals, VersionChanges, count_changes
from prefect_stagegate.show.document import Document, Section, VersionBeside, recall_of, render, sections_of
from prefect_stagegate.show.expectations import by_table, cells, read_results
from prefect_stagegate.show.markdown import to_artifact
from prefect_stagegate.show.model import PastEvent, Report, build_report
from prefect_stagegate.show.next_steps import Turn, reason_of
from prefect_stagegate.show.ready import Candidate, Readiness, ready_document, ready_text
from prefect_stagegate.show.report_document import document_of
from prefect_stagegate.show.rows import Person, Row
from prefect_stagegate.show.text import to_rich

__all__ = [
    "Candidate",
    "Document",
    "FileTotals",
    "PastEvent",
    "Person",
    "Readiness",
    "Report",
    "Row",
    "Section",
    "Turn",
    "VersionBeside",
    "VersionChanges",
    "build_report",
    "by_table",
    "cells",
    "count_changes",
    "document_of",
    "failed_document",
    "promotion_document",
    "proposal_document",
    "read_results",
    "ready_document",
    "ready_text",
    "reason_of",
    "recall_of",
    "render",
    "sections_of",
    "to_artifact",
    "to_rich",
    "validation_document",
]
