"""Making a report small enough for one page: a hostile or very large one loses its least needed details first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect_stagegate.show.changes import VersionChanges
from prefect_stagegate.show.legible import shortened
from prefect_stagegate.show.model import Report
from prefect_stagegate.show.next_steps import is_command
from prefect_stagegate.show.rows import Row
from prefect_stagegate.show.tables import TableFigures

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
    columns: int
    """Columns of all tables together."""
    files: int
    """Files that changed."""


MOST_BYTES = 300_000
"""Size of a page, at most. A report that exceeds it is shown with less detail."""
DETAILS = (
    Detail(findings=200, text=2000, results=200, columns=100, files=100),
    Detail(findings=100, text=600, results=100, columns=60, files=50),
    Detail(findings=40, text=240, results=40, columns=30, files=20),
    Detail(findings=10, text=100, results=10, columns=10, files=5),
    Detail(findings=0, text=60, results=0, columns=0, files=0),
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
        profiles=tuple(_tables(report.profiles, detail)),
        changes=report.changes and _changes(report.changes, detail),
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


def _with_short(record: Any, detail: Detail, *names: str) -> Any:
    """The record with these texts shortened."""
    return replace(record, **{name: shortened(getattr(record, name), detail.text) for name in names})


def _step(step: str, detail: Detail) -> str:
    return shortened(step, COMMAND if is_command(step) else detail.text)


def _tables(tables: Sequence[TableFigures], detail: Detail) -> Iterator[TableFigures]:
    columns = detail.columns
    for table in tables:
        texts = ("name", "type", "span", "span_before")
        shown = tuple(_with_short(column, detail, *texts) for column in table.columns[:columns])
        yield replace(table, columns=shown, more=table.more + len(table.columns) - len(shown))
        columns -= len(shown)


def _changes(changes: VersionChanges, detail: Detail) -> VersionChanges:
    tables = tuple(
        replace(
            table,
            added=_columns(table.added, detail),
            removed=_columns(table.removed, detail),
            retyped=_columns(table.retyped, detail),
        )
        for table in changes.tables
    )
    return replace(changes, listed=changes.listed[: detail.files], tables=tables)


def _columns(names: Sequence[str], detail: Detail) -> tuple[str, ...]:
    return tuple(shortened(name, detail.text) for name in names)
