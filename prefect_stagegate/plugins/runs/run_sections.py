"""The runs that used a version, on pages, in reports, and beside a withdrawal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect_stagegate.model import Address
from prefect_stagegate.plugins.runs.use_records import VersionUse, read_uses
from prefect_stagegate.show.document import Cell, Section, Table, Text, VersionBeside
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.units import count_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

SHOWN = 20
"""Runs that a page, a report, an event or a message names, the newest first. `stagegate runs` lists more."""
NO_END = "open, or killed"
HEAD = ("Run", "By", "From", "To", "Registered models")


def run_section(workspace: Workspace, subject: VersionBeside) -> list[Section]:
    """The runs that used the version that a page or report is about."""
    version = subject.version
    uses, more = read_uses(workspace.catalog, version.dataset, version.digest, SHOWN, UnreadableRecords())
    if not uses:
        return []
    rows = tuple(map(_row, uses))
    summary = f"{count_text(len(uses) + more, 'run')} used it, last {uses[0].run}"
    return [Section("Runs that used it", (Table(HEAD, rows, summary=summary, more=more),), _values(uses, more))]


def recall_section(workspace: Workspace, subject: Address) -> list[Section]:
    """The runs and registered models that a withdrawal or a revocation names."""
    uses, more = read_uses(workspace.catalog, subject.dataset, subject.digest, SHOWN, UnreadableRecords())
    if not uses:
        return []
    values = _values(uses, more)
    names = ", ".join(f"{use.run} ({use.who} on {use.node})" for use in uses)
    texts = [f"Runs that used it: {names}{f', and {more} more: `stagegate runs {subject}`' if more else ''}"]
    if values["models"]:
        texts.append(f"Models that they registered: {', '.join(values['models'])}")
    return [Section("Runs that used it", tuple(map(Text, texts)), values)]


def _row(use: VersionUse) -> tuple[Cell, ...]:
    return (
        Cell(str(use.run), use.run.name),
        Cell(use.who, use.node),
        Cell(time_text(use.begun)),
        Cell(time_text(use.ended) if use.ended else NO_END),
        Cell(", ".join(use.models)),
    )


def _values(uses: list[VersionUse], more: int) -> dict[str, Any]:
    models = sorted({model for use in uses for model in use.models})
    return {"runs": [asdict(use) for use in uses], "more_runs": more, "models": models[:SHOWN]}
