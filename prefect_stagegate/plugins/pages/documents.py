"""What programs get for a page: the document that a command's `--json` prints for the same thing.

/, /datasets                          stagegate status
/datasets/NAME                        stagegate ls NAME
/datasets/NAME/policy                 stagegate policy show NAME
/datasets/NAME/compare                stagegate diff NAME@sha256:OLD NAME@sha256:NEW
/datasets/NAME/versions/HEX, …/files  stagegate show NAME@sha256:HEX
…/decisions/TARGET/HEX                the JSON of the report

Long lists come in parts, as the pages show them; the header `Link` leads to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeAlias

from starlette.requests import Request

from prefect_stagegate.catalog.version_records import listed_datasets, version_digests
from prefect_stagegate.cli.policy_commands import adopted_values
from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.jobs import inspect
from prefect_stagegate.jobs.review.decisions import find_decision_about
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.jobs.review.status import status_values
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.navigation import Slice, slice_of
from prefect_stagegate.plugins.pages.views.comparison_page import MOST_FILES, compared_files
from prefect_stagegate.serve.incoming import names_in
from prefect_stagegate.show import Report, document_of
from prefect_stagegate.unreadable import UnreadableRecords

DATASETS = 50
"""Datasets of one part of the statuses."""
VERSIONS = 100
"""Versions of one part of a dataset's list."""
ENTRIES = 1000
"""Entries of one part of a version."""

Values: TypeAlias = tuple[Any, Slice | None]
"""A document, and which part of it; None for a whole one."""
ReadValues: TypeAlias = Callable[[CatalogView, Request], Values]


def statuses(view: CatalogView, request: Request) -> Values:
    """The status of each dataset."""
    names, unreadable, values = listed_datasets(view.catalog), UnreadableRecords(), []
    cut = _cut(request, DATASETS, len(names))
    for position in cut.range:
        try:
            known, lost = view.status_with_losses(names[position])
        except StagegateError as error:  # what verifies its answers is absent: that ends no other's status
            unreadable.add(error, names[position])
            continue
        unreadable.update(lost)
        values += [status_values(known)] if known else []
    return [*values, *({"unreadable": record} for record in unreadable.all)], cut


def versions(view: CatalogView, request: Request) -> Values:
    """The versions of a dataset in the order of their staging; the first part has the newest."""
    (name,), unreadable = names_in(request.path_params, "dataset"), UnreadableRecords()
    cut = _cut(request, VERSIONS, len(version_digests(view.catalog, name)))
    part = slice(cut.total - cut.range.stop, cut.total - cut.range.start)
    lines = inspect.list_versions(view.workspace, name, unreadable, part=part)
    return [*lines, *({"unreadable": record} for record in unreadable.all)], cut


def policy(view: CatalogView, request: Request) -> Values:
    """The adopted policy of a dataset."""
    return adopted_values(view.workspace, *names_in(request.path_params, "dataset")), None


def version(view: CatalogView, request: Request) -> Values:
    """A version with its entries."""
    address, unreadable = Address(*names_in(request.path_params, "dataset", "version")), UnreadableRecords()
    line, manifest = inspect.show(view.workspace, address, unreadable)
    cut = _cut(request, ENTRIES, line.files)
    entries = list(islice(manifest.entries(), cut.range.start, cut.range.stop))
    beside = inspect.beside(view.workspace, address, unreadable)
    return {**asdict(line), "entries": entries, **beside, "unreadable": unreadable.all}, cut


def comparison(view: CatalogView, request: Request) -> Values:
    """The files in which two versions differ."""
    totals, differences, cut = compared_files(view, request)
    if totals is None:
        raise UsageError(
            f"The versions have more than {MOST_FILES:,} files, and are not compared here", hint="Use `stagegate diff`."
        )
    return differences, cut


def decision(view: CatalogView, request: Request) -> Values:
    """The report of a decision."""
    return document_of(decision_report(view, request)).values, None


def decision_report(view: CatalogView, request: Request) -> Report:
    """The report of the decision that an address names.

    Raises:
        UsageError: There is none.
    """
    names = names_in(request.path_params, "dataset", "version", "target", "decision")
    found = find_decision_about(view.workspace, *names)
    return report_of(view.workspace, found)


def _cut(request: Request, size: int, total: int) -> Slice:
    return slice_of(request.query_params.get("page", ""), size, total)
