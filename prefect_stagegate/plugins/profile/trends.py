"""How a dataset's kept figures went over its last versions: sizes, times, rows, and the profiles of columns.

Reads records alone. A figure that no record has is missing at its version; nothing is computed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.catalog.gate_records import decided_versions, newest_attestation, read_evidence
from prefect_stagegate.catalog.kept_records import TRANSFERS, read_kept
from prefect_stagegate.catalog.version_records import read_seal, require_dataset
from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.review.decisions import decision_line
from prefect_stagegate.model import LATEST
from prefect_stagegate.plugins.profile.profiles import ColumnProfile
from prefect_stagegate.plugins.profile.profiling import kept_profile
from prefect_stagegate.show import read_results
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import count_text
from prefect_stagegate.workspace import Workspace

MOST_VERSIONS = 100
"""Versions that trends look back."""
MOST_COLUMNS = 200
"""Columns of a table whose figures are read."""
QUANTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}
"""The quantiles that are followed, by what people call them."""
BOUNDED = {"expect_column_mean_to_be_between": "mean", "expect_column_median_to_be_between": "median"}
"""The figure that each expectation bounds by `min_value` and `max_value`."""
Bound = tuple[float | None, float | None]
"""The least and the greatest value that a suite accepts; None where it has no such bound."""
NO_BOUND: Bound = (None, None)


@dataclass(frozen=True, slots=True)
class TrendVersion:
    """One version, with the newest decision of each target's gate."""

    digest: str
    at: str
    """When it was staged last."""
    decisions: Mapping[str, str]
    """The outcome by target."""


@dataclass(frozen=True, slots=True)
class Trend:
    """One figure at each version, the oldest first."""

    table: str
    """Empty for a figure of the whole version."""
    column: str
    """Empty for a figure of the whole table."""
    figure: str
    """`rows`, `missing` (a share), `mean`, `median`, …; `bytes`, `files`, `seconds to validate`, …"""
    values: tuple[float | None, ...]
    """None where no record has it."""
    bound: Bound = NO_BOUND
    """What the newest version's suite accepts."""

    @property
    def name(self) -> str:
        """What the figure is of, and its name."""
        return " ".join(filter(None, (".".join(filter(None, (self.table, self.column))), self.figure)))

    @property
    def known(self) -> list[float]:
        """The values that are known."""
        return [value for value in self.values if value is not None]

    @property
    def moves(self) -> bool:
        """Whether the figure is not the same at all versions that have it, or has a bound."""
        return len(set(self.known)) > 1 or (self.bound != NO_BOUND and bool(self.known))


@dataclass(frozen=True, slots=True)
class DatasetTrends:
    """The figures of a dataset's last versions."""

    dataset: str
    versions: tuple[TrendVersion, ...]
    """The oldest first."""
    trends: tuple[Trend, ...]


def read_trends(workspace: Workspace, dataset: str, versions: int) -> DatasetTrends:
    """Read the kept figures of the newest versions of a dataset, each at its last staging.

    Raises:
        UsageError: There is no such dataset, or the number of versions is out of bounds.
        CatalogError: A log can't be read. Records of single versions that can't be read leave gaps.
    """
    if not 1 <= versions <= MOST_VERSIONS:
        raise UsageError(
            f"{count_text(versions, 'version')} can't be shown", hint=f"Write --last 1 to {MOST_VERSIONS}."
        )
    catalog = workspace.catalog
    require_dataset(catalog, dataset)
    staged: dict[str, str] = {}
    for entry in reversed(catalog.history(dataset, LATEST)):
        staged.setdefault(entry.digest, entry.at)
    shown = list(staged)[:versions][::-1]
    targets: dict[str, list[str]] = {}
    for digest, target in decided_versions(catalog, dataset):
        targets.setdefault(digest, []).append(target)
    spec: Spec | None = None
    with suppress(StagegateError, IndexError):  # no spec, no tables and bounds
        spec = stored_spec(workspace, dataset, shown[-1])
    by_version = [dict(_figures(workspace, dataset, digest, spec)) for digest in shown]
    names = dict.fromkeys(name for figures in by_version for name in figures)
    bounds = dict(_bounds(spec)) if spec else {}
    trends = [
        Trend(*name, tuple(_finite(figures.get(name)) for figures in by_version), bounds.get(name, NO_BOUND))
        for name in names
    ]
    marks = [
        TrendVersion(digest, staged[digest], _decisions(workspace, dataset, digest, targets.get(digest, [])))
        for digest in shown
    ]
    return DatasetTrends(dataset, tuple(marks), tuple(trends))


_Name = tuple[str, str, str]
"""Table, column and figure."""


def _figures(workspace: Workspace, dataset: str, digest: str, spec: Spec | None) -> Iterator[tuple[_Name, Any]]:
    """What the records of one version say; those that can't be read say nothing."""
    catalog = workspace.catalog
    with suppress(StagegateError):
        seal = read_seal(catalog, dataset, digest)
        yield ("", "", "files"), seal.files
        yield ("", "", "bytes"), seal.bytes
    with suppress(StagegateError):
        if transfer := read_kept(catalog, TRANSFERS, dataset, digest=digest):
            yield ("", "", "seconds to stage"), transfer.seconds
    with suppress(StagegateError):
        # The newest result of each check.
        for evidence in {record.check: record for record in read_evidence(catalog, dataset, digest)}.values():
            if results := read_results(evidence):
                yield ("", "", "expectations that failed"), sum(result.verdict == "failed" for result in results)
                yield ("", "", "seconds to validate"), evidence.seconds
    for table in spec.contract.tables if spec else ():
        profile = kept_profile(workspace, dataset, digest, table)
        if profile is None:
            continue
        yield (table, "", "rows"), profile.rows
        for name, column in list(profile.ordered().items())[:MOST_COLUMNS]:
            yield from (((table, name, figure), value) for figure, value in _of_column(column))


def _of_column(column: ColumnProfile) -> Iterator[tuple[str, float | None]]:
    if column.rows:
        yield "missing", 1 - column.values / column.rows
    if column.kind == "number" and column.quantiles:
        yield "mean", column.mean
        for name, level in QUANTILES.items():
            yield name, column.quantiles[int(level * len(column.quantiles))]


def _finite(value: object) -> float | None:
    """A figure of a record, which may be anybody's."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _bounds(spec: Spec) -> Iterator[tuple[_Name, Bound]]:
    """What the suites accept, as far as they bound a figure by numbers."""
    for table, contract in spec.contract.tables.items():
        suite = contract.model_dump(mode="json")["suite"] or {}
        for expectation in suite.get("expectations") or ():
            given: Mapping[str, Any] = expectation.get("kwargs") or {}
            kind, column = expectation.get("type"), str(given.get("column", ""))
            between = (_finite(given.get("min_value")), _finite(given.get("max_value")))
            if kind == "expect_table_row_count_to_be_between":
                yield (table, "", "rows"), between
            elif kind == "expect_column_values_to_not_be_null":
                yield (table, column, "missing"), (None, round(1 - (_finite(given.get("mostly", 1)) or 0.0), 9))
            elif kind in BOUNDED:
                yield (table, column, BOUNDED[kind]), between
            elif kind == "expect_column_quantile_values_to_be_between":
                yield from (((table, column, name), bound) for name, bound in _quantile_bounds(given))


def _quantile_bounds(given: Mapping[str, Any]) -> Iterator[tuple[str, Bound]]:
    ranges = given.get("quantile_ranges")
    if not isinstance(ranges, Mapping):  # a parameter
        return
    levels: Sequence[Any] = ranges.get("quantiles") or ()
    for level, between in zip(levels, ranges.get("value_ranges") or (), strict=False):
        name = next((name for name, known in QUANTILES.items() if known == level), "")
        if name and isinstance(between, list | tuple) and len(between) == len(NO_BOUND):
            yield name, (_finite(between[0]), _finite(between[1]))


def _decisions(workspace: Workspace, dataset: str, digest: str, targets: Sequence[str]) -> dict[str, str]:
    outcomes: dict[str, str] = {}
    for target in targets:
        with suppress(StagegateError):
            if statement := newest_attestation(workspace.catalog, dataset, digest, target):
                outcomes[target] = decision_line(dataset, digest, target, statement)[0].outcome
    return outcomes
