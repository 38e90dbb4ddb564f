"""Measuring a version's rows for checks, by queries over its files. A lease holds the version during each query."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from threading import Event

from prefect_stagegate.errors import UsageError, nearest_hint
from prefect_stagegate.gate.bindings import BINDINGS
from prefect_stagegate.gate.context import CheckContext, Fact, local_view
from prefect_stagegate.gate.run import counting
from prefect_stagegate.jobs.staging.fetch import present
from prefect_stagegate.jobs.staging.temporary_tables import insert, temporary
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.measures import Balance, Duplicates, Overlap, Scan, TableDrift
from prefect_stagegate.model import Entry, Evidence
from prefect_stagegate.plugins.profile.balance import balance, balance_of
from prefect_stagegate.plugins.profile.drift import column_types, drift, is_ignored
from prefect_stagegate.plugins.profile.drift import profile as profile_rows
from prefect_stagegate.plugins.profile.duplicates import duplicates, overlap, shared_records
from prefect_stagegate.plugins.profile.pii import scan
from prefect_stagegate.plugins.profile.profiles import TableProfile
from prefect_stagegate.plugins.profile.profiling import kept_profiles
from prefect_stagegate.spec.csv_dialect import AS_USUAL
from prefect_stagegate.spec.models import TableSpec
from prefect_stagegate.validations import newest_time
from prefect_stagegate.validations.files.paths import matcher
from prefect_stagegate.validations.queries.duck import Queries, queries
from prefect_stagegate.validations.queries.relations import TableFiles
from prefect_stagegate.workspace import ResolvedVersion

TABLE = "table "
"""What the name of a table begins with in what `freshness` measured."""
ROWS = 500
"""Rows per insert into the temporary table."""


@dataclass(frozen=True)
class VersionMeasures:
    """Queries over one version's files. Each stages the versions that it reads on this node if they aren't here.

    Every method may raise a `StagegateError`: a file or column can't be read, or a version can't be staged.
    """

    workspace: Workspace
    version: ResolvedVersion
    cancel: Event | None = None

    def duplicates(self, table: str, keys: Sequence[str]) -> Duplicates:
        """Count the rows of a table that share the values of `keys`."""
        with self._open(f"table {table}") as (view, database):
            return duplicates(database, self._table(view, table), keys)

    def shared_files(self, splits: Mapping[str, str]) -> Overlap:
        """Compare the digests of the files that each split's glob names."""
        names = list(splits)
        tests = [matcher(splits[name]) for name in names]
        # One bit for each split: the sum of a digest's distinct bits is the set of splits that have the file.
        memberships = (
            (entry.digest, 1 << bit)
            for entry in self._manifest(self.version.digest)
            for bit, test in enumerate(tests)
            if test(entry.path)
        )
        table = "CREATE TABLE files (digest TEXT, split INTEGER, PRIMARY KEY (digest, split)) WITHOUT ROWID"
        with closing(temporary(table)) as database:
            while rows := list(islice(memberships, ROWS)):
                insert(database, "INSERT OR IGNORE INTO files", rows)
            held = "SELECT sum(split) AS held FROM files GROUP BY digest"
            return overlap(names, dict(database.execute(f"SELECT held, count(*) FROM ({held}) GROUP BY held")))  # noqa: S608

    def shared_records(self, splits: Mapping[str, str], by: Sequence[str]) -> Overlap:
        """Compare the records in the files that each split's glob names."""
        with self._open("the splits") as (view, database):
            return shared_records(database, {name: self._split(view, glob) for name, glob in splits.items()}, by)

    def balance(self, table: str, column: str) -> Balance:
        """Count the values of a column, in the table's kept profile where that has them all."""
        self._spec(table)  # raises for a table that the contract lacks
        kept = self._kept([table]).get(table)
        if kept and column in kept.columns and (counted := balance_of(kept.columns[column])):
            return counted
        with self._open(f"table {table}") as (view, database):
            return balance(database, self._table(view, table), column)

    def drift(self, reference: str, ignored: Sequence[str]) -> Mapping[str, TableDrift]:
        """Compare each table with the same one of another version."""
        before, now = self._profiles(reference, ignored), self._profiles(self.version.digest, ignored)
        return {table: drift(table, before[table], now[table], ignored) for table in now}

    def scan(self, table: str, columns: Sequence[str], ignored: Sequence[str], patterns: Sequence[str]) -> Scan:
        """Look for patterns in a table's text; no error quotes a value."""
        with self._open(f"table {table}", discreet=True) as (view, database):
            return scan(database, self._table(view, table), columns, ignored, patterns)

    def columns(self, digest: str, tables: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """The columns of tables in a version, each with its type."""
        with self._open("the tables", digest) as (view, database):
            return {table: column_types(database, self._table(view, table, digest)) for table in tables}

    def outside_tables(self) -> int:
        """How many files belong to no table."""
        tests = [matcher(table.files) for table in self.version.spec.contract.tables.values()]
        return sum(not any(test(entry.path) for test in tests) for entry in self._manifest(self.version.digest))

    def _profiles(self, digest: str, ignored: Sequence[str]) -> dict[str, TableProfile]:
        """The profiles of all tables: the kept ones where they suffice, so that the version need not be here."""
        tables = self.version.spec.contract.tables
        kept = self._kept(tables, digest)
        profiles = {name: profile for name, profile in kept.items() if not _withholds(name, profile, ignored)}
        missing = [name for name in tables if name not in profiles]
        if missing:
            with self._open("the tables", digest) as (view, database):
                for name in missing:
                    profiles[name] = profile_rows(database, self._table(view, name, digest))
        return {name: profiles[name] for name in tables}

    def _kept(self, tables: Collection[str], digest: str = "") -> dict[str, TableProfile]:
        # Profiles are not signed.
        return {} if self.version.spec.policy.node_keys else kept_profiles(self.workspace, self.version, tables, digest)

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

    def _split(self, view: Path, glob: str) -> TableFiles:
        """The files of a split, which are read as those of the table that has the first of them."""
        paths = self._paths(glob)
        tables = self.version.spec.contract.tables.values()
        reading = next((table.reading for table in tables if paths and matcher(table.files)(paths[0])), AS_USUAL)
        return TableFiles(view, paths, reading)

    def _paths(self, glob: str, digest: str = "") -> list[str]:
        matches = matcher(glob)
        return [entry.path for entry in self._manifest(digest or self.version.digest) if matches(entry.path)]

    def _manifest(self, digest: str) -> Iterator[Entry]:
        return self.workspace.catalog.manifest(self.version.dataset, digest).entries()


@Fact
def measures(context: CheckContext) -> VersionMeasures:
    """Queries over the version's rows."""
    return VersionMeasures(context.workspace, context.version, context.cancel)


@Fact
def table_time(context: CheckContext, table: str) -> datetime | None:
    """The newest value in the `time` column of a table of the contract, aware; None when it has no rows."""
    view = local_view(context)
    return newest_time(view, context.entries(), context.spec.contract.tables[table]) if view else None


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


def _withholds(table: str, profile: TableProfile, ignored: Sequence[str]) -> bool:
    """Whether a kept profile lacks the figures of a column that is to be compared."""
    return any(column.withheld and not is_ignored(table, name, ignored) for name, column in profile.columns.items())
