"""The page of a dataset: its versions in time with decisions, sizes and drift, and what its targets name."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from starlette.requests import Request

from prefect_stagegate.catalog import RefEntry, withdrawn
from prefect_stagegate.catalog.refs import REFS
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.model import LATEST, Address
from prefect_stagegate.plugins.pages.catalog_view import CatalogView, VersionFigures
from prefect_stagegate.plugins.pages.navigation import slice_of
from prefect_stagegate.plugins.pages.rendering import Sparkline, sparkline
from prefect_stagegate.serve.incoming import names_in
from prefect_stagegate.show import sections_of
from prefect_stagegate.units import bytes_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords

VERSIONS = 25
"""Versions of one page."""
MOVES = 12
"""Moves of targets that are shown, the newest first."""


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version of the list."""

    figures: VersionFigures
    at: str
    """When it was staged last."""
    by: str
    refs: tuple[str, ...]
    """The refs that name it now."""
    withdrawn: tuple[str, ...]
    """The targets that withdrew it."""


def dataset_page(view: CatalogView, request: Request) -> SimpleNamespace:
    """Read the page of a dataset.

    Raises:
        UnknownDataset: There is no such dataset.
    """
    (dataset,) = names_in(request.path_params, "dataset")
    require_dataset(view.catalog, dataset)
    unreadable = UnreadableRecords()
    logs: dict[str, list[RefEntry]] = {}
    for ref in view.catalog.folders(REFS, dataset):
        with unreadable.skip(dataset):
            logs[ref] = view.log(dataset, ref)
    # The same version staged again counts where it was staged last.
    staged = {entry.digest: entry for entry in logs.get(LATEST, [])}
    newest = sorted(staged.values(), key=lambda entry: entry.seq, reverse=True)
    cut = slice_of(request.query_params.get("page", ""), VERSIONS, len(newest))
    shown = [newest[position] for position in cut.range]
    heads = {ref: entries[-1].digest for ref, entries in logs.items() if entries}
    withdrawals = {ref: withdrawn(entries) for ref, entries in logs.items()}
    rows = tuple(
        VersionRow(
            figures,
            entry.at,
            str(entry.who),
            tuple(ref for ref, digest in heads.items() if digest == entry.digest),
            tuple(ref for ref, digests in withdrawals.items() if entry.digest in digests),
        )
        for entry, figures in zip(shown, view.figures(dataset, [entry.digest for entry in shown]), strict=True)
    )
    moves = [entry for ref, entries in logs.items() if ref != LATEST for entry in entries[-MOVES:]]
    status = view.status(dataset)
    return SimpleNamespace(
        dataset=dataset,
        turns=status.lines if status else (),
        rows=rows,
        slice=cut,
        sizes=_sizes(rows),
        drifts=_drifts(rows),
        moves=sorted(moves, key=lambda entry: entry.at, reverse=True)[:MOVES],
        sections=view.kept(dataset, "sections", lambda: sections_of("dataset", view.workspace, Address(dataset))),
        unreadable=unreadable,
    )


def _sizes(rows: tuple[VersionRow, ...]) -> Sparkline | None:
    known = [row.figures for row in reversed(rows) if not row.figures.problem]
    if not known:
        return None
    least, most = min(figure.bytes for figure in known), max(figure.bytes for figure in known)
    label = f"Size: {bytes_text(known[0].bytes)} to {bytes_text(known[-1].bytes)}; "
    label += f"least {bytes_text(least)}, most {bytes_text(most)}"
    return sparkline(
        label, [(float(figure.bytes), f"{digest_text(figure.digest)}: {bytes_text(figure.bytes)}") for figure in known]
    )


def _drifts(rows: tuple[VersionRow, ...]) -> Sparkline | None:
    figures = [row.figures for row in reversed(rows)]
    known = [figure.drift for figure in figures if figure.drift is not None]
    if not known:
        return None
    label = f"Drift, the largest distance of a column: {known[0]:.3f} to {known[-1]:.3f}; most {max(known):.3f}"
    texts = [
        f"{digest_text(figure.digest)}: {'' if figure.drift is None else f'{figure.drift:.3f}'}" for figure in figures
    ]
    return sparkline(label, [(figure.drift, text) for figure, text in zip(figures, texts, strict=True)])
