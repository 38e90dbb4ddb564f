"""Turn a suite's judgements into findings for the gate. Pure.

The severity decides, not Great Expectations' own `success`: a failed critical expectation fails, a failed warning
warns, and a failed info is noted. An expectation that could not be evaluated is inconclusive, unless it is an info.
One that is not applicable is named, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.table_files import ContractTable
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement, TableReport

FAILURE = {"critical": Outcome.FAIL, "warning": Outcome.WARN, "info": Outcome.PASS}
UNKNOWN = {"critical": Outcome.INCONCLUSIVE, "warning": Outcome.INCONCLUSIVE, "info": Outcome.PASS}
MOST_FILES = 10
"""Files that get a finding each for one expectation. When more files break it, or all, one finding counts them."""


def expectation_findings(table: ContractTable, report: TableReport | None) -> list[Finding]:
    """The findings of a table's suite, or one finding that says why the suite could not run."""
    if unjudged := _unjudged(table, report):
        reason, fix = unjudged
        return [Finding(f"table {table.name}", f"{reason}, so its suite did not run", fix, Outcome.INCONCLUSIVE)]
    assert report is not None  # noqa: S101 - else there is a reason
    # Files that broke off were not judged, so their rows don't count.
    unread = {file for file, _ in report.unreadable}
    rows = {file.path: file.rows for file in table.judged if file.path not in unread}
    return [
        finding
        for judgement in report.judgements
        if judgement.verdict is not ExpectationVerdict.PASSED
        for finding in _findings(table.name, judgement, rows)
    ]


def _unjudged(table: ContractTable, report: TableReport | None) -> tuple[str, str] | None:
    """Why the suite could not run, and what to do; no fix where findings about the files have it."""
    if not table.expectations:
        return "it has no expectations", "Write at least one into its suite."
    if not table.listed:
        return f"it has no files: {table.spec.files} matches none", "Deliver them, or correct the glob."
    if not table.judged:
        return "no file of it could be judged", ""
    if not table.rows:
        return "it has no rows", "Deliver its rows."
    if report is None or not report.judgements:
        return "no file of it could be read to the end", "Validate again, or repair the files at their source."
    return None


def _findings(table: str, judgement: Judgement, rows: Mapping[str, int]) -> Iterator[Finding]:
    outcome = (UNKNOWN if judgement.verdict is ExpectationVerdict.ERRORED else FAILURE)[judgement.severity]
    note = "noted: " if outcome is Outcome.PASS else ""
    subject = f"{table}.{judgement.column}" if judgement.column else f"table {table}"
    engine = f" (on {judgement.engine})" if judgement.engine else ""
    if judgement.verdict is ExpectationVerdict.NOT_APPLICABLE:
        yield Finding(subject, f"not applicable: {judgement.expectation}: {judgement.problem}", "", Outcome.PASS)
    elif not judgement.places:
        yield Finding(subject, f"{note}{judgement.expectation}: {judgement.problem}{engine}", judgement.fix, outcome)
    elif len(judgement.places) > MOST_FILES or len(judgement.places) == len(rows) > 1:
        yield Finding(subject, note + _in_many_files(judgement, rows), judgement.fix, outcome)
    else:
        for place in judgement.places:
            column = f"{judgement.column}: " if judgement.column else ""
            count = f"{place.rows:,} of {count_text(rows[place.file], 'row')}"
            example = f", for example {place.example}" if place.example else ""
            problem = f"{note}{column}{count} break {judgement.expectation}{example}"
            yield Finding(place.file, problem, judgement.fix, outcome)


def _in_many_files(judgement: Judgement, rows: Mapping[str, int]) -> str:
    first = judgement.places[0]
    total = sum(place.rows for place in judgement.places)
    files = f"{len(judgement.places)} of {count_text(len(rows), 'file')}, most of them in {first.file} ({first.rows:,})"
    example = f", for example {first.example}" if first.example else ""
    verb = "breaks" if total == 1 else "break"
    return f"{count_text(total, 'row')} {verb} {judgement.expectation} in {files}{example}"
