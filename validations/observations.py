"""Everything that was observed about a version, before any check concludes from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.spec.parameters import Value
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.facts import REWRITE
from prefect_stagegate.validations.files.file_probes import ProbedFiles
from prefect_stagegate.validations.table_files import ContractTable
from prefect_stagegate.validations.table_schema import TableFile
from prefect_stagegate.validations.worker.worker_messages import TableReport

ORDER = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.WARN, Outcome.PASS)
"""Outcomes of findings from the worst to the best; the worst decides."""
NAMED = 5
"""Files of one table that a check names because it did not look at them; it counts the others."""


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The worst outcome; pass when there is none."""
    return min(outcomes, key=ORDER.index, default=Outcome.PASS)


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything that was observed about a version."""

    files: ProbedFiles
    tables: Sequence[ContractTable]
    reports: Mapping[str, TableReport]
    """Reports by table. A table without a suite or without rows has none."""
    parameters: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """The values of each suite's parameters, by table and by name."""

    def unreadable(self) -> dict[str, Finding]:
        """The files that could not be opened, or not read to the end."""
        # Some defects show only when the suite reads a file to the end.
        late = {
            file: Finding(file, reason, REWRITE)
            for report in self.reports.values()
            for file, reason in report.unreadable
        }
        return {**self.files.defects, **late}

    def left_out(
        self, table: ContractTable, looked_at: Collection[str], result: str, outcome: Outcome = Outcome.INCONCLUSIVE
    ) -> Iterator[Finding]:
        """Say of each of the table's files that is not in `looked_at` why, what to do, and what the `result` is."""
        paths = [path for path in table.listed if path not in looked_at]
        unreadable = self.unreadable()
        for path in paths[:NAMED]:
            wrong = [problem for problem in table.problems.get(path, ()) if problem.outcome is Outcome.FAIL]
            reason = unreadable.get(path) or next(iter(wrong), None)
            problem, fix = (reason.problem, reason.fix) if reason else ("it was not opened", "Validate again.")
            yield Finding(path, f"{problem}, so {result}", fix, outcome)
        if (more := len(paths) - NAMED) > 0:
            problem = f"{count_text(more, 'more file')} of {len(table.listed):,} can't be used, so {result}"
            yield Finding(f"table {table.name}", problem, "", outcome)

    def breaking_schema(self) -> set[str]:
        """The files whose columns break the contract."""
        return {file.path for table in self.tables for file in table.opened if table.breaks_schema(file.path)}

    def read(self, table: ContractTable) -> list[TableFile]:
        """The files that the table's suite read to the end."""
        report = self.reports.get(table.name)
        unread = {file for file, _ in report.unreadable} if report else set()
        return [file for file in table.judged if file.path not in unread]
