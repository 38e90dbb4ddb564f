"""Measuring a version's rows for checks, by queries over its files or by the profiles that validations kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

from prefect_stagegate.gate.check_context import CheckContext, Fact
from prefect_stagegate.jobs.gating.table_facts import VersionRows
from prefect_stagegate.jobs.staging.temporary_tables import insert, temporary
from prefect_stagegate.model.measures import Balance, Duplicates, Overlap, Scan, TableDrift
from prefect_stagegate.patterns import matcher
from prefect_stagegate.plugins.profile.balance import balance, balance_of
from prefect_stagegate.plugins.profile.drift import drift, is_ignored
from prefect_stagegate.plugins.profile.drift import profile as profile_rows
from prefect_stagegate.plugins.profile.duplicates import duplicates, overlap, shared_records
from prefect_stagegate.plugins.profile.pii import scan
from prefect_stagegate.plugins.profile.profiles import TableProfile
from prefect_stagegate.plugins.profile.profiling import kept_profiles
from prefect_stagegate.spec.csv_dialect import AS_USUAL
from prefect_stagegate.validations.queries.relations import TableFiles

ROWS = 500
"""Rows per insert into the temporary table."""


class VersionMeasures(VersionRows):
    """Measures of one version's rows."""

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

    def _split(self, view: Path, glob: str) -> TableFiles:
        """The files of a split, which are read as those of the table that has the first of them."""
        paths = self._paths(glob)
        tables = self.version.spec.contract.tables.values()
        reading = next((table.reading for table in tables if paths and matcher(table.files)(paths[0])), AS_USUAL)
        return TableFiles(view, paths, reading)


@Fact
def measures(context: CheckContext) -> VersionMeasures:
    """Queries over the version's rows."""
    return VersionMeasures(context.workspace, context.version, context.cancel)


def _withholds(table: str, profile: TableProfile, ignored: Sequence[str]) -> bool:
    """Whether a kept profile lacks the figures of a column that is to be compared."""
    return any(column.withheld and not is_ignored(table, name, ignored) for name, column in profile.columns.items())
