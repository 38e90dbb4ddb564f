"""Drift.

A check on how far the data moved since a version that was accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from prefect_stagegate.errors import Cancelled, StagegateError
from prefect_stagegate.gate.accepted import Accepted, accepted_below, last_accepted
from prefect_stagegate.gate.base import CheckResult, Parameters, one_finding
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check
from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.model.measures import ColumnDrift, TableDrift
from prefect_stagegate.plugins.profile.measuring import measures
from prefect_stagegate.units import count_text, digest_text, listed


class Drift(Parameters):
    """Evidently's defaults: a distance of 0.1, and half of the columns."""

    distance: float = Field(
        default=0.1, gt=0, description="The distance from which on a column counts as moved.", examples=[0.2]
    )
    share: float = Field(
        default=0.5, gt=0, le=1, description="The share of moved columns from which on it fails.", examples=[0.3]
    )
    rows: int = Field(
        default=1000,
        ge=1,
        description="The fewest rows, on either side, that a distance means something of.",
        examples=[200],
    )
    ignore: tuple[str, ...] = Field(
        default=(),
        description="Columns that may move, by name or as table.column: identifiers, counters, dates as numbers.",
        examples=[["flights.year", "id"]],
    )


@Check("drift", owner="ai", binds=("contract", "below", "accepted"), fetches=True)
def drift(context: CheckContext, parameters: Drift) -> CheckResult:
    """How far each column moved from the version that the gate below accepted or, where that is this one, from the last
    one that this target accepted.

    No column with a distance of `distance` (0.1) or more passes, some warn, `share` (half) of the compared columns
    fail. The distances are Evidently's (https://docs.evidentlyai.com/metrics/customize_data_drift): the first
    Wasserstein distance in standard deviations of the reference for numbers, the Jensen-Shannon distance for text,
    truth values and numbers with at most five values. Fewer rows than `rows` (1,000) are inconclusive. Times, nested
    columns and text with more than 1,000 values are not compared. Not applicable when nothing was accepted before. A
    version without a kept profile is brought to this node.
    """  # noqa: D205 - the first sentence is long
    reference = _reference(context)
    if reference is None:
        return CheckResult(Outcome.NOT_APPLICABLE, "no accepted version to compare with")
    try:
        tables = measures(context).drift(reference.digest, parameters.ignore)
    except Cancelled:
        # A stop is no answer, so nothing may be recorded.
        raise
    except StagegateError as error:
        address = f"{context.dataset}@{reference.digest}"
        fix = f"Run the check on a node that has both versions, or stage the accepted one: stagegate stage {address}"
        summary = f"could not be measured: {error.message.splitlines()[0]}"
        return one_finding(Outcome.INCONCLUSIVE, address, str(error), fix, summary=summary)
    columns = [column for table in tables.values() for column in table.columns]
    compared = {column.name: column.distance for column in columns if column.distance is not None}
    measured = {
        "reference": reference.digest,
        "distances": {name: round(distance, 4) for name, distance in compared.items()},
        "skipped": {column.name: column.skipped for column in columns if column.skipped},
        "rows": {name: [table.rows, table.reference_rows] for name, table in tables.items()},
    }
    # A distance over few rows is noise, so it is not compared with the limit.
    if few := tuple(_too_few_rows(tables, parameters.rows)):
        return CheckResult(
            Outcome.INCONCLUSIVE, f"too few rows in {listed([finding.subject for finding in few])}", few, measured
        )
    if not compared:
        fix = "Name tables under `contract`, or take drift out of the gate."
        return one_finding(Outcome.INCONCLUSIVE, "tables", "no column can be compared", fix, measured)
    return _evaluate(columns, parameters, f"{reference.target}'s {digest_text(reference.digest)}", measured)


def _reference(context: CheckContext) -> Accepted | None:
    """The accepted version to compare with; None without one. Never the version itself."""
    candidates = (accepted_below(context), last_accepted(context))
    return next((candidate for candidate in candidates if candidate and candidate.digest != context.digest), None)


def _too_few_rows(tables: Mapping[str, TableDrift], rows: int) -> Iterator[Finding]:
    for name, table in tables.items():
        fewest = min(table.rows, table.reference_rows)
        if fewest < rows:
            fix = "Set a smaller `rows` for drift in the gate if so few are enough."
            problem = f"it has {count_text(fewest, 'row')}; {rows:,} are required"
            yield Finding(f"table {name}", problem, fix, Outcome.INCONCLUSIVE)


def _evaluate(
    columns: list[ColumnDrift], parameters: Drift, reference: str, measured: Mapping[str, object]
) -> CheckResult:
    compared = [(column, column.distance) for column in columns if column.distance is not None]
    moved = [(column, distance) for column, distance in compared if distance >= parameters.distance]
    if not moved:
        furthest = max(distance for _, distance in compared)
        summary = f"{count_text(len(compared), 'column')} within {furthest:.3f} of {reference}"
        return CheckResult(Outcome.PASS, summary, measured=measured)
    outcome = Outcome.FAIL if len(moved) >= parameters.share * len(compared) else Outcome.WARN
    moved.sort(key=lambda item: -item[1])
    fix = "Find what changed at the source. If the change is intended, train again, or `ignore` the column in the gate."
    findings = tuple(
        Finding(column.name, f"{column.method} distance {distance:.3f} from {reference}", fix, outcome)
        for column, distance in moved
    )
    names = listed([column.name for column, _ in moved])
    summary = f"{len(moved)} of {count_text(len(compared), 'column')} moved: {names}"
    return CheckResult(outcome, summary, findings, measured)
