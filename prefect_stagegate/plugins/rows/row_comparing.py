"""Compares the rows of two versions: chooses the files that differ, and has them compared in a confined process."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CatalogError, NoSpace, UsageError, ValidationError, WorkerCrashed
from prefect_stagegate.jobs.address import resolve
from prefect_stagegate.jobs.gating.validate import limits_of
from prefect_stagegate.jobs.staging.fetch import present
from prefect_stagegate.model import Address
from prefect_stagegate.patterns import matcher
from prefect_stagegate.plugins.rows.row_changes import CHANGES, RowChanges, TablePair, TableRowChanges, contract_digest
from prefect_stagegate.plugins.rows.row_queries import compare_rows
from prefect_stagegate.plugins.rows.row_section import section_of
from prefect_stagegate.show.document import Section
from prefect_stagegate.spec import TableSpec
from prefect_stagegate.units import digest_text, listed
from prefect_stagegate.validations.partition_columns import partition_types, row_digests
from prefect_stagegate.validations.queries.duck import QueryFailed, queries
from prefect_stagegate.validations.worker.process_limits import SHARE, ValidationLimits, is_about_limits
from prefect_stagegate.workspace import Workspace

MOST_MEMORY = 1 << 30
"""Bytes that DuckDB may hold in memory; it spills more."""
NO_SPACE = re.compile(
    r"No space left|Disk quota|File too large|max_temp_directory_size|failed to offload", re.IGNORECASE
)
"""What DuckDB says where it can't spill."""

log = logging.getLogger(__name__)


def compare_versions(
    workspace: Workspace, old: Address, new: Address, key: Sequence[str], progress: Callable[[str], None] | None = None
) -> Section:
    """Compare the rows of the tables of two versions, as `stagegate diff --rows` does. Fetches those that aren't here.

    Only files are read whose rows the other version has in no file. The tables are those of the new version's contract.
    What was counted is kept in the catalog for reports and pages, where both are versions of one dataset.

    Args:
        workspace: Cache and catalog.
        old: The version to compare with.
        new: The version that is compared.
        key: The columns that tell which rows are the same; empty to compare whole rows.
        progress: Called with lines for people.

    Raises:
        UsageError: The contract has no tables, or the key is not unique, has missing values or is no column.
        ValidationError: A file can't be read, or columns can't be compared.
        NoSpace: The cache's volume has no room for what does not fit into memory.
    """
    version = resolve(workspace, new)
    tables = version.spec.contract.tables
    if not tables:
        raise UsageError(
            f"The contract of {version.dataset} has no table, so there are no rows to compare",
            hint="Name the tables under `contract.tables` and adopt it, or compare files: leave --rows out.",
        )
    before = Address(old.dataset, workspace.catalog.resolve(old))
    after = Address(version.dataset, version.digest)
    files = [_files(workspace, address, tables) for address in (before, after)]
    pairs = [
        _pair(name, table, (before, after), (files[0][name], files[1][name]), key) for name, table in tables.items()
    ]
    found = {changes.table: changes for changes in _compared(workspace, (before, after), pairs, progress)}
    if key and found and not any(changes.key for changes in found.values()):
        raise UsageError(
            f"No table that differs has the key {', '.join(key)} in both versions",
            hint="Name each column of a table by a --key, or leave --key out to compare whole rows.",
            dataset=version.dataset,
        )
    results = tuple(
        replace(
            found.get(pair.table, TableRowChanges(pair.table)), same_files=len(files[1][pair.table]) - len(pair.new)
        )
        for pair in pairs
    )
    compared = (version.dataset, before.digest, after.digest, contract_digest(version.spec))
    changes = RowChanges(*compared, results, str(workspace.identity), stamp(now()))
    if before.dataset == after.dataset and before != after:
        kept = replace(changes, tables=tuple(replace(table, samples=()) for table in results))
        try:
            workspace.catalog.put(CHANGES, kept, changes.dataset, changes.new, changes.old)
        except CatalogError as error:  # who may not write to the catalog compares all the same
            log.info("What was counted of the rows is not kept: %s", error)
    return section_of(changes, (_name(before), _name(after)))


def _name(version: Address) -> str:
    return f"{version.dataset}@{digest_text(version.digest)}"


def _files(workspace: Workspace, version: Address, tables: Mapping[str, TableSpec]) -> dict[str, dict[str, str]]:
    """The digest of the rows of each file of a version's tables."""
    tests = {name: matcher(table.files) for name, table in tables.items()}
    files: dict[str, dict[str, str]] = {name: {} for name in tables}
    for entry in read_manifest(workspace.catalog, version.dataset, version.digest).entries():
        for name, matches in tests.items():
            if matches(entry.path):
                files[name][entry.path] = entry.digest
    return {name: row_digests(files[name], table.reading) for name, table in tables.items()}


def differing_files(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The files of both versions whose rows the other one has in no file; each file cancels out one other."""
    shared = Counter(old.values()) & Counter(new.values())
    differing: tuple[list[str], list[str]] = ([], [])
    for files, paths in zip((old, new), differing, strict=True):
        left = shared.copy()
        for path, digest in files.items():
            if left[digest]:
                left[digest] -= 1
            else:
                paths.append(path)
    return differing


def _pair(
    name: str,
    table: TableSpec,
    versions: tuple[Address, Address],
    files: tuple[Mapping[str, str], Mapping[str, str]],
    key: Sequence[str],
) -> TablePair:
    """What differs of a table, with paths in the dataset."""
    # A version without files of the table has no folders that could differ from the other's.
    of_old, of_new = (partition_types(files[side] or files[1 - side]) for side in (0, 1))
    partitions = (of_old, of_new, partition_types([*files[0], *files[1]]))
    names = (_name(versions[0]), _name(versions[1]))
    return TablePair(name, names, *differing_files(*files), partitions, table.reading, tuple(key), table.pii)


def _compared(
    workspace: Workspace,
    versions: tuple[Address, Address],
    pairs: Sequence[TablePair],
    progress: Callable[[str], None] | None,
) -> tuple[TableRowChanges, ...]:
    """Compare tables in a confined process, whose scratch folder lies on the cache's volume for as long.

    Only versions are held on this node of which a file is read.

    Raises:
        UsageError, ValidationError, NoSpace: What the process replied.
        WorkerCrashed: It died, replied nonsense, or took longer than a validation may.
    """
    pairs = [pair for pair in pairs if pair.old or pair.new]
    if not pairs:
        return ()
    if progress:
        progress(f"comparing {listed([pair.table for pair in pairs])}")
    limits = limits_of(workspace.settings)
    is_read = (any(pair.old for pair in pairs), any(pair.new for pair in pairs))
    with ExitStack() as held:
        views = [
            held.enter_context(present(workspace, version.dataset, version.digest, "diff --rows")) if needed else Path()
            for version, needed in zip(versions, is_read, strict=True)
        ]
        # A collection removes what a killed process leaves of a draft.
        scratch = held.enter_context(workspace.cache.views.draft()).folder()
        memory = min(limits.memory // SHARE, MOST_MEMORY)
        bounds = replace(limits, memory=memory, scratch=str(scratch))
        folders = [view for view, needed in zip(views, is_read, strict=True) if needed]
        return tuple(_compared_pair(pair.below(views[0], views[1]), folders, bounds) for pair in pairs)


def _compared_pair(pair: TablePair, folders: Sequence[Path], bounds: ValidationLimits) -> TableRowChanges:
    about = f"the rows of table {pair.table}"
    try:
        # A database a table: what one holds in memory is gone for the next.
        with queries(about, *folders, discreet=bool(pair.personal), bounds=bounds) as database:
            return compare_rows(database, pair)
    except QueryFailed as error:
        if NO_SPACE.search(error.reason):
            hint = "Free some space on the cache's volume, or let it take more by STAGEGATE_VALIDATION_SPILL."
            raise NoSpace(f"No space left to compare {about}", hint=hint) from None
        if is_about_limits(error.reason):
            hint = "Let it take more by STAGEGATE_VALIDATION_MEMORY, or compare fewer files."
            raise ValidationError(f"More memory than permitted is needed to compare {about}", hint=hint) from None
        error.hint = "Run `stagegate validate` on both versions: it names the files that can't be read."
        raise
    except WorkerCrashed as error:
        error.hint += " Give it more time by STAGEGATE_VALIDATION_TIMEOUT."
        raise
