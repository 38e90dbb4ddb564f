"""What a contract's findings amount to: one piece of evidence a check, and one row a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from prefect_stagegate.model import Evidence, Finding, Outcome, TableResult
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.checks import CHECKS, table_findings
from prefect_stagegate.validations.found import ORDER, Found, worst
from prefect_stagegate.validations.records import Verdict
from prefect_stagegate.validations.tables import Table

VERSION = "2"
"""Grows when a check of this module changes its meaning, so that older evidence is gathered anew."""
MOST_FINDINGS = 50
"""Findings that one piece of evidence lists before it only counts."""


def gather(found: Found, *, digest: str, at: str) -> tuple[Evidence, ...]:
    """The evidence of the contract's checks, bound to the version's digest; `at` is when it was gathered."""
    binding = {"version": digest, "check_version": VERSION}
    answers = {name: check(found) for name, check in CHECKS.items()}
    return tuple(
        Evidence(
            check=name,
            outcome=answer.outcome,
            summary=answer.summary,
            owner="data",
            findings=_bounded(answer.findings),
            measured={**answer.measured, "findings": len(answer.findings)},
            binding=binding,
            at=at,
        )
        for name, answer in answers.items()
    )


def _bounded(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst findings, and how many more there are."""
    ordered = sorted(findings, key=lambda finding: ORDER.index(finding.outcome))
    rest = ordered[MOST_FINDINGS:]
    if not rest:
        return tuple(ordered)
    more = Finding(
        "…", count_text(len(rest), "more finding"), "Mend these first, then validate again.", rest[0].outcome
    )
    return (*ordered[:MOST_FINDINGS], more)


def table_result(table: Table, found: Found) -> TableResult:
    """What the contract found about one table, in figures."""
    report = found.reports.get(table.name)
    verdicts = [judgement.verdict for judgement in report.judgements] if report else []
    outcome = worst([finding.outcome for finding in table_findings(table, found)])
    return TableResult(
        name=table.name,
        files=len(table.listed),
        rows=sum(file.rows for file in found.read(table)),
        evaluated=len(verdicts) - verdicts.count(Verdict.ERRORED),
        failed=verdicts.count(Verdict.FAILED),
        passed=outcome in (Outcome.PASS, Outcome.WARN),
    )
