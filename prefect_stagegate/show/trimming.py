"""Making a document small enough for one page: a hostile or very large one loses its least needed details first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from prefect_stagegate.show.document import Cell, Document, Outcomes, Part, Table, Text
from prefect_stagegate.show.legible import shortened
from prefect_stagegate.show.next_steps import is_command
from prefect_stagegate.show.rows import Row

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
COMMAND = 1000
"""Characters of a command, which a shorter one would make wrong."""


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of a document a page shows."""

    findings: int
    """Findings of all checks together."""
    text: int
    """Characters of one text."""
    rows: int
    """Rows of one table."""


MOST_BYTES = 300_000
"""Size of a page, at most. A document that exceeds it is shown with less detail."""
DETAILS = (Detail(200, 2000, 200), Detail(100, 600, 50), Detail(40, 240, 20), Detail(10, 100, 5), Detail(0, 60, 0))
"""How much a page shows, the most first."""


def fitted(document: Document, write: Callable[[Document], str]) -> str:
    """Write a document with the most detail that fits `MOST_BYTES`; with the least where none does."""
    page = ""
    for detail in DETAILS:
        page = write(trimmed(document, detail))
        # Lone surrogates stand for bytes of names that aren't UTF-8.
        if len(page.encode(errors="surrogatepass")) <= MOST_BYTES:
            break
    return page


def trimmed(document: Document, detail: Detail) -> Document:
    """The document without what exceeds the detail; what is left out is counted."""
    sections = (
        replace(section, parts=tuple(_part(part, detail) for part in section.parts)) for section in document.sections
    )
    return replace(
        document,
        lead=shortened(document.lead, detail.text),
        notes=tuple(shortened(note, detail.text) for note in document.notes),
        steps=tuple(_step(step, detail) for step in document.steps),
        sections=tuple(sections),
    )


def _part(part: Part, detail: Detail) -> Part:
    match part:
        case Outcomes():
            return replace(part, rows=tuple(_checks(part.rows, detail)))
        case Table():
            rows = tuple(tuple(_cell(cell, detail) for cell in row) for row in part.rows[: detail.rows])
            left = len(part.rows) - len(rows)
            part = _with_short(part, detail, "title", "summary")
            return replace(part, rows=rows, more=part.more + left, fine=max(0, part.fine - left))
        case Text():
            return _with_short(part, detail, "text")
        case _:
            return part


def _cell(cell: Cell, detail: Detail) -> Cell:
    figure = cell.figure and _with_short(cell.figure, detail, "name")
    return replace(_with_short(cell, detail, "text", "below"), figure=figure)


def _checks(rows: Sequence[Row], detail: Detail) -> Iterator[Row]:
    room = detail.findings
    for row in rows:
        shown = row.findings[:room]
        room -= len(shown)
        findings = (_with_short(finding, detail, "subject", "problem") for finding in shown)
        yield replace(
            row,
            summary=shortened(row.summary, detail.text),
            findings=tuple(replace(finding, fix=_step(finding.fix, detail)) for finding in findings),
            findings_left_out=row.findings_left_out + len(row.findings) - len(shown),
        )


def _with_short(record: T, detail: Detail, *names: str) -> T:
    """The record with these texts shortened."""
    return replace(record, **{name: shortened(getattr(record, name), detail.text) for name in names})


def _step(step: str, detail: Detail) -> str:
    return shortened(step, COMMAND if is_command(step) else detail.text)
