"""One table of a contract before its suite runs: its files, their columns, and which files can be judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import types

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.model import Outcome
from prefect_stagegate.spec import TableSpec
from prefect_stagegate.validations import schema
from prefect_stagegate.validations.files.files import ProbedFiles
from prefect_stagegate.validations.partitions import partition_types, with_partitions
from prefect_stagegate.validations.queries.sql import form, is_text
from prefect_stagegate.validations.schema import ColumnProblem, TableFile


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
        """Whether a file's columns break the contract; never true where the contract declares no columns."""
        return bool(self.spec.columns) and any(
            problem.outcome is Outcome.FAIL for problem in self.problems.get(path, ())
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
            opened.append(TableFile(path, columns, facts.rows, is_text(path), _is_json(path), frozenset(partitions)))
    return ContractTable(name, spec, listed, opened, schema.compare(name, spec.columns, opened))


def _is_json(path: str) -> bool:
    return form(Path(path)) == "json"
