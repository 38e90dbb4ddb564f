"""Profiles of a version's tables: computed beside a validation, kept in the catalog, and found there again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from threading import Event

from prefect_stagegate.catalog.kept_records import put_kept, read_kept
from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.errors import CatalogError, ValidationError
from prefect_stagegate.patterns import matcher
from prefect_stagegate.plugins.profile.parts import profile_table
from prefect_stagegate.plugins.profile.profiles import (
    ALGORITHM,
    LEVELS,
    NO_PARTS,
    PARTS,
    PROFILES,
    ProfileParts,
    TableProfile,
    files_digest,
)
from prefect_stagegate.spec import Spec
from prefect_stagegate.validations.partition_columns import row_digests
from prefect_stagegate.validations.queries.duck import queries
from prefect_stagegate.validations.queries.relations import TableFiles
from prefect_stagegate.workspace import ResolvedVersion, Workspace

log = logging.getLogger(__name__)


def profile_version(
    workspace: Workspace,
    version: ResolvedVersion,
    view: Path,
    cancel: Event | None,
    progress: Callable[[str], None],
    *,
    reread: bool = False,
) -> None:
    """Profile the tables of a version that lies in `view`, and keep the profiles, unless it is a trial.

    A table that can't be read gets no profile: the contract's checks say what is wrong with it.

    Args:
        workspace: The catalog.
        version: The version, and the spec with the contract.
        view: The version's folder.
        cancel: Set it to stop the running query.
        progress: Called with lines for people while the work goes on.
        reread: Whether to read all files again, also those that were profiled before.

    Raises:
        Cancelled: The cancel event was set.
    """
    if version.is_trial:
        return
    try:
        # All tables at once, since each call reads the whole manifest.
        by_table = table_files(workspace, version, version.spec.contract.tables)
    except CatalogError as error:
        log.warning("No profile of %s is kept: %s", version.dataset, error)
        return
    for table, files in by_table.items():
        try:
            _profile_table(workspace, version, view, table, files, cancel, progress, reread=reread)
        except ValidationError as error:
            log.info("Table %s of %s has no profile: %s", table, version.dataset, error)
        except CatalogError as error:
            log.warning("The profile of table %s of %s is not kept: %s", table, version.dataset, error)


def _profile_table(
    workspace: Workspace,
    version: ResolvedVersion,
    view: Path,
    table: str,
    files: Mapping[str, str],
    cancel: Event | None,
    progress: Callable[[str], None],
    *,
    reread: bool,
) -> None:
    catalog, dataset = workspace.catalog, version.dataset
    known = NO_PARTS if reread else _known_parts(workspace, dataset, table)
    read = TableFiles(view, list(files), version.spec.contract.tables[table].reading)
    with queries(f"table {table} of {dataset}", view, cancel=cancel, discreet=True) as database:
        progress(f"profiling table {table}")
        withheld = withheld_columns(version.spec, table)
        profiled = profile_table(database, read, files, known=known, withheld=withheld, progress=progress)
    put_kept(catalog, PROFILES, profiled.profile, dataset, table=table, digest=version.digest)
    # Without new files the record stays as it is, and is not written again.
    if profiled.parts != known:
        put_kept(catalog, PARTS, profiled.parts, dataset, table=table)


def _known_parts(workspace: Workspace, dataset: str, table: str) -> ProfileParts:
    try:
        return read_kept(workspace.catalog, PARTS, dataset, table=table) or NO_PARTS
    except CatalogError as error:
        log.warning("All files of table %s of %s are profiled again: %s", table, dataset, error)
        return NO_PARTS


def table_files(
    workspace: Workspace, version: ResolvedVersion, tables: Collection[str], digest: str = ""
) -> dict[str, dict[str, str]]:
    """The files of tables in this version, or in another `digest`: each file's digest by path, by table."""
    tests = {table: matcher(version.spec.contract.tables[table].files) for table in tables}
    files: dict[str, dict[str, str]] = {table: {} for table in tables}
    for entry in read_manifest(workspace.catalog, version.dataset, digest or version.digest).entries():
        for table, matches in tests.items():
            if matches(entry.path):
                files[table][entry.path] = entry.digest
    return files


def kept_profiles(
    workspace: Workspace, version: ResolvedVersion, tables: Collection[str], digest: str = ""
) -> dict[str, TableProfile]:
    """The kept profiles of tables of a version, as far as there are any of exactly these files, computed as now.

    `digest` is another version of the dataset; empty for this one.

    Raises:
        CatalogError: The version's manifest can't be read.
    """
    kept = {table: kept_profile(workspace, version.dataset, digest or version.digest, table) for table in tables}
    profiles = {table: profile for table, profile in kept.items() if profile}
    if not profiles:
        return {}  # reading the manifest takes long
    # The contract may have named other files when a profile was kept.
    files = table_files(workspace, version, profiles, digest)
    readings = {table: version.spec.contract.tables[table].reading for table in profiles}
    digests = {table: files_digest(list(row_digests(files[table], readings[table]).values())) for table in profiles}
    return {table: profile for table, profile in profiles.items() if profile.files == digests[table]}


def kept_profile(workspace: Workspace, dataset: str, digest: str, table: str) -> TableProfile | None:
    """The kept profile of a table, computed as now, of whichever files it had then; None without one."""
    try:
        profile = read_kept(workspace.catalog, PROFILES, dataset, table=table, digest=digest)
    except CatalogError as error:
        log.warning("The profile of table %s of %s is not used: %s", table, dataset, error)
        return None
    if profile is None or profile.algorithm != ALGORITHM:
        return None
    return profile if all(len(column.quantiles) in (0, LEVELS) for column in profile.columns.values()) else None


def withheld_columns(spec: Spec, table: str) -> frozenset[str]:
    """The columns that the table's `pii` names, or a check `pii` of a gate, under `columns` or `ignore`."""
    withheld = set(spec.contract.tables[table].pii)
    for target in spec.gates:
        for requirement in spec.gate(target).requirements:
            if requirement.check == "pii":
                withheld.update(requirement.params.get("columns", {}).get(table, ()))
                withheld.update(ignored_columns(requirement.params.get("ignore", ()), table))
    return frozenset(withheld)


def ignored_columns(ignore: Iterable[str], table: str) -> list[str]:
    """The columns of one table in `ignore`, which names them as `table.column`."""
    begin = f"{table}."
    return [name.removeprefix(begin) for name in ignore if name.startswith(begin)]
