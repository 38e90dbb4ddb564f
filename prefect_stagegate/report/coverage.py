"""Which validation read which file, as reports and `stagegate show --coverage` tell it: a group for each validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from prefect_stagegate.readings import FilesRead, Reading, Readings
from prefect_stagegate.report.legible import time_text
from prefect_stagegate.units import count_text, digest_text

LINES, OF_GROUP = 300, 50
"""Lines of groups and files in a report, and files of one group, so that the report of many files stays small."""
HEAD = ("Files", "Rows", "State", "Read", "By", "Under")


@dataclass(frozen=True, slots=True)
class CoveredFile:
    """One file that was read."""

    path: str
    digest: str
    """The digest of its bytes; empty where the version's manifest lacks the path."""
    rows: int


@dataclass(frozen=True, slots=True)
class CoveredGroup:
    """The files that one validation was the last to read."""

    reading: Reading
    is_new: bool
    """Whether the validation that gave the evidence read them, and not an earlier one."""
    files: int
    rows: int
    listed: tuple[CoveredFile, ...]
    """The files, or the first of them."""


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A file that was not validated."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class TableCoverage:
    """One table, or the files that probes decode."""

    subject: str
    """`table trips`, or `probes`."""
    files: int
    rows: int
    groups: tuple[CoveredGroup, ...]
    """The newest reading first."""
    more_groups: int
    """Groups that are not listed."""
    unread: tuple[UnreadFile, ...]
    more_unread: int
    """Files that were not validated and are not listed."""
    is_proven: bool
    """Whether it is the list that the evidence names by its digest."""


def cover(
    proven: Iterable[tuple[Readings, bool]],
    digests: Mapping[str, str],
    run: str,
    *,
    lines: int = LINES,
    of_group: int = OF_GROUP,
) -> Iterator[TableCoverage]:
    """Lay out who read which file.

    Args:
        proven: The readings of each table, and whether the evidence names them by their digest.
        digests: The digest of each file's bytes, by path.
        run: The validation that gave the evidence.
        lines: The most groups and files that are listed.
        of_group: The most files of a group that are listed.
    """
    for readings, is_proven in proven:
        groups = []
        for group in readings.groups:
            if lines <= 0:
                break
            groups.append(_group(group, digests, run, min(of_group, lines - 1)))
            lines -= 1 + len(groups[-1].listed)
        unread = [UnreadFile(*item) for item in islice(readings.unread.items(), max(0, min(of_group, lines)))]
        lines -= len(unread)
        yield TableCoverage(
            readings.subject,
            readings.files,
            readings.rows,
            tuple(groups),
            len(readings.groups) - len(groups),
            tuple(unread),
            len(readings.unread) - len(unread),
            is_proven,
        )


def _group(group: FilesRead, digests: Mapping[str, str], run: str, most: int) -> CoveredGroup:
    listed = tuple(CoveredFile(path, digests.get(path, ""), rows) for path, rows in islice(group.files.items(), most))
    is_new = bool(run) and group.reading.run == run
    return CoveredGroup(group.reading, is_new, len(group.files), sum(group.files.values()), listed)


def table_text(table: TableCoverage) -> str:
    """How much of a table was read by how many validations, in words."""
    validations = count_text(len(table.groups) + table.more_groups, "validation")
    text = f"{table.subject}: {counts_text(table)} read by {validations}"
    if unread := len(table.unread) + table.more_unread:
        text += f"; {count_text(unread, 'file')} not validated"
    return text if table.is_proven else f"{text}; the version was validated again since, and this is the later list"


def counts_text(group: CoveredGroup | TableCoverage) -> str:
    """The files, and their rows where they have any."""
    files = count_text(group.files, "file")
    return f"{files}, {count_text(group.rows, 'row')}" if group.rows else files


def group_text(group: CoveredGroup) -> str:
    """A group in words: how many files were read when, by whom, under what."""
    by = f"{when_text(group.reading)} by {reader_text(group.reading)}"
    return f"{counts_text(group)}: {state_text(group)}, read {by}"


def group_cells(group: CoveredGroup) -> tuple[str, ...]:
    """The texts below `HEAD`."""
    counts = (f"{group.files:,}", f"{group.rows:,}", state_text(group))
    return (*counts, when_text(group.reading), reader_text(group.reading), basis_text(group.reading))


def state_text(group: CoveredGroup) -> str:
    """Whether the validation read the files now, or kept what an earlier one read."""
    return "new" if group.is_new else "kept"


def when_text(reading: Reading) -> str:
    """When a validation began."""
    return time_text(reading.at) if reading.at else "at an unknown time"


def reader_text(reading: Reading) -> str:
    """Which validation read the files, by whom it was run, and where."""
    if not reading.run:
        return "an unknown run"
    flow_run = f" in flow run {reading.flow_run}" if reading.flow_run else ""
    return f"run {reading.run} of {reading.who or 'nobody named'} on {reading.node or 'an unknown node'}{flow_run}"


def basis_text(reading: Reading) -> str:
    """The suite and the libraries that a validation read the files under."""
    if not reading.run:
        return "unknown suite and libraries"
    suite = f"suite {digest_text(reading.suite)}" if reading.suite else ""
    return "; ".join(filter(None, (suite, reading.libraries))) or "no suite"
