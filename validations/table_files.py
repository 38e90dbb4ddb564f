"""One table of a contract before its suite runs: its files, their columns, and which files can be judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

from pyarrow import types

from prefect_stagegate.model import Outcome
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec import TableSpec
from prefect_stagegate.validations import table_schema as schema
from prefect_stagegate.validations.files.file_probes import ProbedFiles
from prefect_stagegate.validations.files.formats import form, is_text
from prefect_stagegate.validations.files.refused_values import refused_values
from prefect_stagegate.validations.partition_columns import partition_types, with_partitions
from prefect_stagegate.validations.table_schema import ColumnProblem, TableFile
from prefect_stagegate.validations.worker.values import LONGEST_PATTERN, MASKED, pattern, short

MOST_NAMED = 50
"""Refused columns of a table's files of which a value is looked for: each is another reading of its file."""
CORRECT = "Correct it at its source, or say under the table's `csv:` how its files are written (dates, decimal, null)."


@dataclass(frozen=True, slots=True)
class ContractTable:
    """A table with the results of opening its files."""

    name: str
    spec: TableSpec
    listed: Sequence[str]
    """Every file that its glob names."""
    opened: Sequence[TableFile]
    """The files that passed their probes."""
    problems: Mapping[str, Sequence[ColumnProblem]]
    """The problems with each file's columns, by path."""

    @property
    def judged(self) -> list[TableFile]:
        """The opened files whose columns keep the contract; the suite runs over these."""
        return [file for file in self.opened if not self.breaks_schema(file.path)]

    def breaks_schema(self, path: str) -> bool:
        """Whether a file's columns break the contract; without declared ones, only names that are not clear do."""
        return any(
            problem.outcome is Outcome.FAIL and (bool(self.spec.columns) or problem.ambiguous)
            for problem in self.problems.get(path, ())
        )

    @property
    def columns(self) -> list[str]:
        """The columns of all opened files, each once."""
        return list(dict.fromkeys(name for file in self.opened for name in file.schema.names))

    @property
    def unknown_personal(self) -> list[str]:
        """Names under `pii` that no file has. Their case makes no difference."""
        known = {name.casefold() for name in self.columns}
        return [name for name in self.spec.pii if name.casefold() not in known]

    @property
    def personal(self) -> Sequence[str]:
        """The columns whose values are masked: all where a name under `pii` may be misspelled."""
        return [*self.spec.pii, *self.columns] if self.unknown_personal else self.spec.pii

    @property
    def rows(self) -> int:
        """Rows of the files that the suite runs over."""
        return sum(file.rows for file in self.judged)

    @property
    def expectations(self) -> int:
        """Expectations in the suite; 0 without one."""
        return len((self.suite or {}).get("expectations") or ())

    @property
    def suite(self) -> Mapping[str, Any] | None:
        """The suite as JSON values: dates of the YAML file become text."""
        suite: Mapping[str, Any] | None = self.spec.model_dump(mode="json")["suite"]
        return suite

    @property
    def zoneless(self) -> set[str]:
        """The columns whose times have no zone."""
        return {
            field.name
            for file in self.judged
            for field in file.schema
            if types.is_timestamp(field.type) and field.type.tz is None
        }

    @property
    def suite_digest(self) -> str:
        """`sha256:<hex>` of the suite; empty without one."""
        return digest_of(self.suite) if self.suite is not None else ""


def examine(name: str, spec: TableSpec, files: ProbedFiles) -> ContractTable:
    """Compare the columns of the table's files with the contract and with each other."""
    listed = files.matches[spec.files]
    partitions = partition_types(listed)
    opened = []
    for path in listed:
        facts = files.facts.get(path)
        if facts is not None and facts.schema is not None:
            columns = with_partitions(facts.schema, partitions)
            opened.append(
                TableFile(path, columns, facts.rows, is_text(path), form(Path(path)) == "json", frozenset(partitions))
            )
    judged = {*_suite_columns(spec.suite), *spec.pii, *([spec.time] if spec.time else [])}
    table = ContractTable(name, spec, listed, opened, schema.compare(name, spec.columns, opened, judged))
    return replace(table, problems=dict(_with_values(table, files.view))) if files.view else table


def _suite_columns(suite: Mapping[str, Any] | None) -> Iterator[str]:
    for expectation in (suite or {}).get("expectations") or ():
        for key, value in (expectation.get("kwargs") or {}).items():
            if key.startswith("column"):
                yield from [value] if isinstance(value, str) else filter(lambda item: isinstance(item, str), value)


def _with_values(table: ContractTable, view: Path) -> Iterator[tuple[str, Sequence[ColumnProblem]]]:
    """The problems, those of refused types with a value that another type refuses. Reads only files that have some."""
    left = MOST_NAMED
    for path, problems in table.problems.items():
        named = list(problems)
        for place, problem in enumerate(problems):
            if problem.sought and is_text(path) and left:
                left -= 1
                column, wanted, kind = problem.sought
                show = partial(_shown, table, column)
                if values := refused_values(view / path, column, kind, wanted, table.spec.csv, show):
                    named[place] = replace(problem, problem=f"column {column}: {values}", fix=CORRECT)
        yield path, named


def _shown(table: ContractTable, column: str, value: str) -> str:
    """A value for a record: as it is, for a partner to find it, unless the table has personal data."""
    if column.casefold() in {name.casefold() for name in table.personal}:
        return MASKED
    if table.personal:
        return pattern(value)
    return dumps(
        "".join(letter if letter.isprintable() else "?" for letter in short(value, LONGEST_PATTERN)), ensure_ascii=False
    )
