"""Finding which validation read which file of a version: the lists that the evidence of `coverage` names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from prefect_stagegate.errors import CatalogError, UsageError
from prefect_stagegate.model import Address, Evidence
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readings import Readings
from prefect_stagegate.report import TableCoverage, cover
from prefect_stagegate.report.coverage import LINES, OF_GROUP

log = logging.getLogger(__name__)
CHECK = "coverage"
SUBJECTS = 200
"""Tables that are read from evidence: a record may be anybody's."""


def coverage_of(workspace: Workspace, address: Address, *, lines: int, of_group: int) -> list[TableCoverage]:
    """Which validation read which file of a version, as its newest evidence proves it.

    Args:
        workspace: The catalog.
        address: The version; without a ref, `latest`.
        lines: The most validations and files that are listed.
        of_group: The most files of one validation that are listed.

    Raises:
        UsageError: There is no such version, or no evidence says who read its files.
    """
    digest = workspace.catalog.resolve(address)
    evidence = workspace.catalog.evidence(address.dataset, digest)
    covered = list(covered_tables(workspace, address.dataset, digest, evidence, lines=lines, of_group=of_group))
    if not covered:
        version = Address(address.dataset, digest)
        raise UsageError(
            f"No validation of {version} says who read its files",
            hint=f"Run it: stagegate validate {version}",
            dataset=address.dataset,
        )
    return covered


def covered_tables(
    workspace: Workspace,
    dataset: str,
    digest: str,
    evidence: Iterable[Evidence],
    *,
    lines: int = LINES,
    of_group: int = OF_GROUP,
) -> Iterator[TableCoverage]:
    """The tables that the newest evidence of `coverage` is about; none without such evidence, or without lists.

    `lines` and `of_group` are the bounds of `report.cover`.

    Raises:
        CatalogError: The version's manifest can't be read.
    """
    newest = max((item for item in evidence if item.check == CHECK), key=lambda item: item.at, default=None)
    if newest is None:
        return
    proven = list(_lists(workspace, dataset, digest, newest.measured.get("readings")))
    if not proven:
        return  # reading the manifest takes long
    paths = {path for readings, _ in proven for group in readings.groups for path in group.files}
    entries = workspace.catalog.manifest(dataset, digest).entries()
    digests = {entry.path: entry.digest for entry in entries if entry.path in paths}
    yield from cover(proven, digests, str(newest.measured.get("run", "")), lines=lines, of_group=of_group)


def _lists(workspace: Workspace, dataset: str, digest: str, figures: Any) -> Iterator[tuple[Readings, bool]]:
    """The list of each table that the evidence has figures of, and whether the evidence names this very list."""
    for subject, figure in list(figures.items())[:SUBJECTS] if isinstance(figures, dict) else ():
        try:
            readings = workspace.catalog.readings(dataset, digest, subject)
        except CatalogError as error:
            log.warning("Nobody can tell who read the files of %s of %s: %s", subject, dataset, error)
            continue
        if readings:
            yield readings, isinstance(figure, dict) and figure.get("list") == readings.digest
