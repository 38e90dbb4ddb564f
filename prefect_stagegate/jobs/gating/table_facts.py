"""Measuring a version's rows for checks, by queries over its files. A lease holds the version during each query."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event

from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.errors import UsageError, nearest_hint
from prefect_stagegate.gate.check_context import CheckContext, Fact, FreshFact, local_view
from prefect_stagegate.gate.evidence_rules import counting
from prefect_stagegate.gate.registry import BINDINGS
from prefect_stagegate.jobs.staging.fetch import present
from prefect_stagegate.model import Entry, Evidence
from prefect_stagegate.patterns import matcher
from prefect_stagegate.spec.models import TableSpec
from prefect_stagegate.validations import newest_time
from prefect_stagegate.validations.queries.duck import Queries, column_types, queries
from prefect_stagegate.validations.queries.relations import TableFiles
from prefect_stagegate.workspace import ResolvedVersion, Workspace

TABLE = "table "
"""What the name of a table begins with in what `freshness` measured."""


@dataclass(frozen=True)
class VersionRows:
    """Queries over one version's files. Each stages the versions that it reads on this node if they aren't here.

    Every method may raise a `StagegateError`: a file or column can't be read, or a version can't be staged.
    """

    workspace: Workspace
    version: ResolvedVersion
    cancel: Event | None = None

    def columns(self, digest: str, tables: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """The columns of tables in a version, each with its type."""
        with self._open("the tables", digest) as (view, database):
            return {table: column_types(database, self._table(view, table, digest)) for table in tables}

    @contextmanager
    def _open(self, about: str, digest: str = "", *, discreet: bool = False) -> Iterator[tuple[Path, Queries]]:
        dataset, digest = self.version.dataset, digest or self.version.digest
        with (
            present(self.workspace, dataset, digest, "check", self.cancel) as view,
            queries(f"{about} of {dataset}@{digest}", view, cancel=self.cancel, discreet=discreet) as database,
        ):
            yield view, database

    def _spec(self, table: str) -> TableSpec:
        tables = self.version.spec.contract.tables
        if table not in tables:
            hint = nearest_hint(table, tables)
            raise UsageError(f"The contract has no table {table!r}", hint=hint, dataset=self.version.dataset)
        return tables[table]

    def _table(self, view: Path, table: str, digest: str = "") -> TableFiles:
        spec = self._spec(table)
        return TableFiles(view, self._paths(spec.files, digest), spec.reading)

    def _paths(self, glob: str, digest: str = "") -> list[str]:
        matches = matcher(glob)
        return [entry.path for entry in self._manifest(digest or self.version.digest) if matches(entry.path)]

    def _manifest(self, digest: str) -> Iterator[Entry]:
        return read_manifest(self.workspace.catalog, self.version.dataset, digest).entries()


@FreshFact
def table_columns(context: CheckContext, digest: str, tables: Collection[str]) -> Mapping[str, Mapping[str, str]]:
    """The columns of tables in a version of the dataset, each with its type; none for a table without files."""
    return VersionRows(context.workspace, context.version, context.cancel).columns(digest, tables)


@Fact
def table_time(context: CheckContext, table: str) -> datetime | None:
    """The newest value in the `time` column of a table of the contract, aware; None when it has no rows."""
    view = local_view(context)
    spec = context.spec.contract.tables[table]
    return newest_time(view, context.entries(), spec, context.cancel) if view else None


def recorded_times(stored: Iterable[Evidence], context: CheckContext) -> dict[str, datetime]:
    """The newest time in each table, from stored evidence of `freshness`: it can't change, for the version doesn't.

    `stored` is all stored evidence about the version, the oldest first.
    """
    bound = {name: BINDINGS[name].value(context) for name in ("version", "contract")}
    return {
        name.removeprefix(TABLE): datetime.fromisoformat(at)
        for answer in counting(stored, context)
        if answer.check == "freshness" and bound.items() <= answer.binding.items()
        for name, at in answer.measured.items()
        if name.startswith(TABLE)
    }
