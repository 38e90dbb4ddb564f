"""Everything that was observed about a version, before any check concludes from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.readings import Readings
from prefect_stagegate.spec.parameters import Value
from prefect_stagegate.validations.files.facts import REWRITE
from prefect_stagegate.validations.files.files import ProbedFiles
from prefect_stagegate.validations.records import TableReport
from prefect_stagegate.validations.schema import TableFile
from prefect_stagegate.validations.tables import ContractTable

ORDER = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.WARN, Outcome.PASS)
"""Outcomes of findings from the worst to the best; the worst decides."""


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
    run: str = ""
    """The name of this validation; empty where nothing of it is kept."""
    readings: Sequence[Readings] = ()
    """Which validation read which file."""

    def unreadable(self) -> dict[str, Finding]:
        """The files that could not be opened, or not read to the end."""
        # Some defects show only when the suite reads a file to the end.
        late = {
            file: Finding(file, reason, REWRITE)
            for report in self.reports.values()
            for file, reason in report.unreadable
        }
        return {**self.files.defects, **late}

    def breaking_schema(self) -> set[str]:
        """The files whose columns break the contract."""
        return {file.path for table in self.tables for file in table.opened if table.breaks_schema(file.path)}

    def read(self, table: ContractTable) -> list[TableFile]:
        """The files that the table's suite read to the end."""
        report = self.reports.get(table.name)
        unread = {file for file, _ in report.unreadable} if report else set()
        return [file for file in table.judged if file.path not in unread]
