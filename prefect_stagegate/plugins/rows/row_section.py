"""How the rows of two versions differ: as `diff --rows` prints it, and in reports and on pages where it was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from prefect_stagegate.plugins.rows.row_changes import RowChanges, RowSample, TableRowChanges, read_changes
from prefect_stagegate.show.document import Cell, Section, Table, Text, VersionBeside
from prefect_stagegate.show.legible import short_line, time_text
from prefect_stagegate.units import count_text, listed
from prefect_stagegate.workspace import Workspace

MOST_TABLES = 50
"""Tables that are shown."""
NAMED = 10
"""Columns and notes of a table that are shown."""


def kept_section(workspace: Workspace, subject: VersionBeside) -> list[Section]:
    """What the last `diff --rows` counted of a version and the one beside it; nothing where nobody compared them."""
    version = subject.version
    if subject.before in ("", version.digest) or not version.spec.contract.tables:
        return []
    changes = read_changes(workspace.catalog, version.spec, subject.before, version.digest)
    return [section_of(changes, (subject.names[1], subject.names[0]))] if changes else []


def section_of(changes: RowChanges, names: tuple[str, str]) -> Section:
    """Lay out a comparison. `names` are those of the old and of the new version."""
    tables = changes.tables[:MOST_TABLES]
    summary = "; ".join(f"{table.table}: {table.summary}" for table in tables)
    head = ("Table", "Added", "Gone", "Changed", "Columns that changed", "Files read")
    rows = tuple(map(_row, tables))
    said = f"Compared {names[0]} with {names[1]} at {time_text(changes.at)} by {changes.who}."
    notes = [Text(f"{table.table}: {note}") for table in tables for note in _notes(table)]
    samples = [
        Table(("Change", "Row", "Values"), tuple(map(_sample, table.samples)), table.table)
        for table in tables
        if table.samples
    ]
    table = Table(head, rows, summary=summary, more=len(changes.tables) - len(tables))
    values = {"row_changes": asdict(changes)}
    return Section("Row changes", (Text(said), table, *notes, *samples), values, short_line(summary))


def _row(table: TableRowChanges) -> tuple[Cell, ...]:
    by = f"by {', '.join(table.key)}" if table.key else "by whole rows"
    columns = [f"{name} {count:,}" for name, count in table.columns.items()]
    more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
    read = f"{sum(table.files):,} of {sum(table.files) + 2 * table.same_files:,}"
    return (
        Cell(table.table, by if any(table.files) else ""),
        Cell(f"{table.added:,}"),
        Cell(f"{table.gone:,}"),
        Cell("" if table.changed is None else f"{table.changed:,}"),
        Cell(", ".join(columns[:NAMED]) + more),
        Cell(read),
    )


def _notes(table: TableRowChanges) -> list[str]:
    notes = list(table.notes[:NAMED])
    if len(table.notes) > NAMED:
        notes.append(f"{len(table.notes) - NAMED} more notes")
    if table.key and table.same_files:
        equal = count_text(table.same_files, "file that both versions have was", "files that both versions have were")
        notes.append(f"{listed(table.key)} is unique in each version's files that were read; {equal} not read")
    return notes


def _sample(sample: RowSample) -> tuple[Cell, ...]:
    changes = {name: f"{before} → {now}" for name, (before, now) in sample.changes.items()}
    return Cell(sample.kind), Cell(_pairs(sample.values)), Cell(_pairs(changes))


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())
