"""Personal data.

A check for personal data where none should be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from pydantic import Field

from prefect_stagegate.gate.base import CheckResult, Parameters
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check
from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.model.measures import Scan
from prefect_stagegate.plugins.profile.measuring import measures
from prefect_stagegate.plugins.profile.profiling import ignored_columns
from prefect_stagegate.units import count_text, listed

Pattern = Literal["email", "phone", "iban", "credit_card", "us_ssn"]
"""What can be looked for; validations has each."""
CALLED: dict[str, str] = {
    "email": "an e-mail address",
    "phone": "an international phone number",
    "iban": "an IBAN",
    "credit_card": "a credit card's number",
    "us_ssn": "a United States social security number",
}


class Pii(Parameters):
    """All text columns of all tables are looked at by default."""

    columns: dict[str, tuple[str, ...]] = Field(
        default={},
        description="The classified columns to look at, by the table's name; by default all text of all tables.",
        examples=[{"customers": ["notes", "subject"]}],
    )
    ignore: tuple[str, ...] = Field(
        default=(),
        description="Columns that may hold personal data, as table.column. They count as unscanned.",
        examples=[["customers.email"]],
    )
    patterns: tuple[Pattern, ...] = Field(
        default=get_args(Pattern), min_length=1, description="What to look for.", examples=[["email", "iban"]]
    )


@Check("pii", owner="governance", binds=("contract",), fetches=True)
def pii(context: CheckContext, parameters: Pii) -> CheckResult:
    """Whether personal data stand in the text of tables: e-mail addresses, phone numbers, IBANs, credit cards, SSNs.

    No hit passes, text that was not scanned warns (ignored or nested columns, files of no table), a hit fails. No
    scanned row is inconclusive. IBANs and cards count only with the right check digits, phone numbers only in their
    international form. Names and addresses can't be told from other text, so a pass is no proof. Values are never
    recorded.
    """
    names = [*parameters.columns] or [*context.spec.contract.tables]
    scans = {name: _scan(context, name, parameters) for name in names}
    # Who chooses columns leaves all other text out on purpose.
    outside = 0 if parameters.columns else measures(context).outside_tables()
    rows = sum(scan.rows for scan in scans.values() if scan.scanned)
    scanned = [f"{name}.{column}" for name, scan in scans.items() for column in scan.scanned]
    measured = {"rows": rows, "scanned": scanned, "outside_tables": outside, "patterns": list(parameters.patterns)}
    hits = tuple(finding for name, scan in scans.items() for finding in _hits(name, scan))
    unscanned = tuple(_unscanned(scans, outside))
    # A hit fails even where other text was not scanned.
    if hits:
        summary = f"personal data in {listed(list(dict.fromkeys(hit.subject for hit in hits)))}"
        return CheckResult(Outcome.FAIL, summary, (*hits, *unscanned), measured)
    if not rows:
        fix = "Name the tables with text under `contract`, or take pii out of the gate."
        finding = Finding("tables", "no text was scanned", fix, Outcome.INCONCLUSIVE)
        return CheckResult(Outcome.INCONCLUSIVE, "no text was scanned", (finding, *unscanned), measured)
    looked = f"nothing in {count_text(len(scanned), 'column')} of {count_text(rows, 'row')}"
    if unscanned:
        return CheckResult(Outcome.WARN, f"{looked}; not scanned: {unscanned[0].subject}", unscanned, measured)
    return CheckResult(Outcome.PASS, looked, measured=measured)


def _scan(context: CheckContext, table: str, parameters: Pii) -> Scan:
    ignored = ignored_columns(parameters.ignore, table)
    return measures(context).scan(table, parameters.columns.get(table, ()), ignored, parameters.patterns)


def _hits(table: str, scan: Scan) -> Iterator[Finding]:
    for (column, pattern), rows in scan.hits.items():
        problem = f"{count_text(rows, 'row')} of {scan.rows:,} look as if they hold {CALLED[pattern]}"
        fix = (
            f"Remove or pseudonymise it at the source. If it may stand there: `ignore: [{table}.{column}]` in the gate."
        )
        yield Finding(f"{table}.{column}", problem, fix)


def _unscanned(scans: dict[str, Scan], outside: int) -> Iterator[Finding]:
    for table, scan in scans.items():
        for column, why in scan.unscanned.items():
            yield Finding(f"{table}.{column}", f"it was not scanned: {why}", "Inspect it by hand.", Outcome.WARN)
    if outside:
        problem = f"not scanned: {count_text(outside, 'file')} outside of all tables"
        yield Finding("files", problem, "Declare those with text as tables, or inspect them by hand.", Outcome.WARN)
