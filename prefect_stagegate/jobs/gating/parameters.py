"""What the catalog knows for the parameters of suites: when a version was staged, and the rows of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.gate import Accepted
from prefect_stagegate.jobs.address import ResolvedVersion
from prefect_stagegate.model import LATEST
from prefect_stagegate.spec import Gate
from prefect_stagegate.spec.parameters import AS_OF, PREVIOUS_ROWS, uses
from prefect_stagegate.units import digest_text
from prefect_stagegate.validations.parameters import SuiteFacts


def suite_facts(catalog: Catalog, version: ResolvedVersion, gate: Gate, reference: Accepted | None) -> SuiteFacts:
    """The facts that the suites of a version's contract name; the others are not looked up.

    `reference` is the version that the gate's target names. The target is empty when nobody asks for a promotion.
    """
    tables = version.spec.contract.tables
    as_of = _staged_at(catalog, version) if uses(tables, AS_OF) else ""
    if not uses(tables, PREVIOUS_ROWS):
        return SuiteFacts(as_of)
    if not gate.target:
        return SuiteFacts(
            as_of, no_previous=f"only a gate has a version before: stagegate check {version.dataset} --gate TARGET"
        )
    if reference is None:
        return SuiteFacts(as_of, no_previous=f"{gate.target} names no other version")
    problem = f"no rows of this table are on record for {digest_text(reference.digest)}, which {gate.target} names"
    return SuiteFacts(as_of, _rows(reference), problem)


def _staged_at(catalog: Catalog, version: ResolvedVersion) -> str:
    """When `latest` first named the version; empty where it never did."""
    entries = catalog.history(version.dataset, LATEST)
    return next((entry.at for entry in entries if entry.digest == version.digest), "")


def _rows(reference: Accepted) -> Mapping[str, int]:
    """The rows of each table that the accepting decision attests."""
    checks = reference.decision.checks if reference.decision is not None else ()
    measured: Mapping[str, Any] = next((item.measured for item in checks if item.check == "expectations"), {})
    rows = measured.get("table_rows")
    return {str(table): count for table, count in rows.items() if isinstance(count, int)} if rows else {}
