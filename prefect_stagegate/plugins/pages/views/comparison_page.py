"""The page that compares two versions of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from types import SimpleNamespace

from starlette.requests import Request

from prefect_stagegate.catalog.version_records import read_manifest, read_seal
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.model.manifest import Change, Difference, diff
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.navigation import Slice, slice_of
from prefect_stagegate.serve.incoming import names_in
from prefect_stagegate.show import FileTotals, Section, VersionBeside, sections_of
from prefect_stagegate.units import digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import ResolvedVersion

FILES = 100
"""Files of one page."""
MOST_FILES = 200_000
"""Files of both versions together that are compared for a page: that many take half a second."""


def comparison_page(view: CatalogView, request: Request) -> SimpleNamespace:
    """Compare two versions.

    Raises:
        UsageError: There is no such dataset or version.
        CorruptRecord: A manifest is damaged.
    """
    dataset, old, new = compared_versions(request)
    unreadable = UnreadableRecords()
    before, after = read_seal(view.catalog, dataset, old), read_seal(view.catalog, dataset, new)
    totals, differences, cut = compared_files(view, request)
    sections: tuple[Section, ...] = ()
    with unreadable.skip(dataset), suppress(UsageError):  # no spec is stored beside it
        version = ResolvedVersion(dataset, new, stored_spec(view.workspace, dataset, new))
        subject = VersionBeside(version, old, (digest_text(new), digest_text(old)))
        sections = sections_of("comparison", view.workspace, subject)
    return SimpleNamespace(
        dataset=dataset,
        old=old,
        new=new,
        files=(before.files, after.files),
        bytes=(before.bytes, after.bytes),
        totals=totals,
        differences=differences,
        slice=cut,
        sections=sections,
        unreadable=unreadable,
    )


def compared_versions(request: Request) -> list[str]:
    """The dataset and the two versions that an address names."""
    return names_in({**request.query_params, **request.path_params}, "dataset", "old", "new")


def compared_files(
    view: CatalogView, request: Request
) -> tuple[dict[str, FileTotals] | None, tuple[Difference, ...], Slice]:
    """The totals of what differs, and one page of it; without totals where the versions have too many files.

    Raises:
        UsageError: There is no such dataset or version.
    """
    (dataset, old, new), number = compared_versions(request), request.query_params.get("page", "")
    seals = [read_seal(view.catalog, dataset, digest) for digest in (old, new)]
    if sum(seal.files for seal in seals) > MOST_FILES:
        return None, (), slice_of(number, FILES, 0)
    totals = view.kept(dataset, ("totals", old, new), lambda: _totals(view, dataset, old, new))
    cut = slice_of(number, FILES, sum(total.files for total in totals.values()))
    return totals, tuple(islice(_differences(view, dataset, old, new), cut.range.start, cut.range.stop)), cut


def _differences(view: CatalogView, dataset: str, old: str, new: str) -> Iterator[Difference]:
    return diff(
        read_manifest(view.catalog, dataset, old).entries(), read_manifest(view.catalog, dataset, new).entries()
    )


def _totals(view: CatalogView, dataset: str, old: str, new: str) -> dict[str, FileTotals]:
    totals = {change.value: FileTotals() for change in Change}
    for difference in _differences(view, dataset, old, new):
        # A removed file has only its old entry.
        entry = difference.new or difference.old
        total = totals[difference.change]
        totals[difference.change] = FileTotals(total.files + 1, total.bytes + (entry.size if entry else 0))
    return totals
