"""Making a report small enough for one page: a hostile or very large one loses its least needed details first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from prefect_stagegate.show.document import Cell, Section
from prefect_stagegate.show.legible import shortened
from prefect_stagegate.show.model import Report
from prefect_stagegate.show.next_steps import is_command
from prefect_stagegate.show.rows import Row

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
COMMAND = 1000
"""Characters of a command, which a shorter one would make wrong."""


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of a report a page shows."""

    findings: int
    """Findings of all checks together."""
    text: int
    """Characters of one text."""
    results: int
    """Results of expectations."""
    rows: int
    """Rows of all tables of sections together."""
    files: int
    """Files that changed."""


MOST_BYTES = 300_000
"""Size of a page, at most. A report that exceeds it is shown with less detail."""
DETAILS = (
    Detail(findings=200, text=2000, results=200, rows=100, files=100),
    Detail(findings=100, text=600, results=100, rows=60, files=50),
    Detail(findings=40, text=240, results=40, rows=30, files=20),
    Detail(findings=10, text=100, results=10, rows=10, files=5),
    Detail(findings=0, text=60, results=0, rows=0, files=0),
)
"""How much a page shows, the most first."""


def fitted(report: Report, write: Callable[[Report], str]) -> str:
    """Write a report with the most detail that fits `MOST_BYTES`; with the least where none does."""
    page = ""
    for detail in DETAILS:
        page = write(trimmed(report, detail))
        # Lone surrogates stand for bytes of names that aren't UTF-8.
        if len(page.encode(errors="surrogatepass")) <= MOST_BYTES:
            break
    return page


def trimmed(report: Report, detail: Detail) -> Report:
    """The report without what exceeds the detail; what is left out is counted."""
    return replace(
        report,
        reason=shortened(report.reason, detail.text),
        steps=tuple(_step(step, detail) for step in report.steps),
        notes=tuple(shortened(note, detail.text) for note in report.notes),
        rows=tuple(_rows(report.rows, detail)),
        changes=report.changes and replace(report.changes, listed=report.changes.listed[: detail.files]),
        sections=tuple(_sections(report.sections, detail)),
        past=tuple(replace(event, why=shortened(event.why, detail.text)) for event in report.past),
    )


def _rows(rows: Sequence[Row], detail: Detail) -> Iterator[Row]:
    findings, results = detail.findings, detail.results
    for row in rows:
        shown, kept = row.findings[:findings], row.results[:results]
        yield replace(
            row,
            summary=shortened(row.summary, detail.text),
            findings=tuple(
                replace(_with_short(finding, detail, "subject", "problem"), fix=_step(finding.fix, detail))
                for finding in shown
            ),
            findings_left_out=row.findings_left_out + len(row.findings) - len(shown),
            results=tuple(_with_short(result, detail, "column", "expectation", "observed") for result in kept),
            results_left_out=row.results_left_out + len(row.results) - len(kept),
        )
        findings -= len(shown)
        results -= len(kept)


def _with_short(record: T, detail: Detail, *names: str) -> T:
    """The record with these texts shortened."""
    return replace(record, **{name: shortened(getattr(record, name), detail.text) for name in names})


def _step(step: str, detail: Detail) -> str:
    return shortened(step, COMMAND if is_command(step) else detail.text)


def _sections(sections: Sequence[Section], detail: Detail) -> Iterator[Section]:
    room = detail.rows
    for section in sections:
        tables = []
        for table in section.parts:
            shown = tuple(tuple(_short_cell(cell, detail) for cell in row) for row in table.rows[:room])
            room -= len(shown)
            short = _with_short(table, detail, "title", "summary")
            tables.append(replace(short, rows=shown, more=table.more + len(table.rows) - len(shown)))
        yield replace(section, parts=tuple(tables))


def _short_cell(cell: Cell, detail: Detail) -> Cell:
    figure = cell.figure and _with_short(cell.figure, detail, "name")
    return replace(_with_short(cell, detail, "text", "below"), figure=figure)
