"""Summarise the observations about a version: evidence for each check, and a result for each table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from prefect_stagegate.model import Evidence, Finding, Outcome, TableResult
from prefect_stagegate.units import count_text
from prefect_stagegate.validations.contract_checks import CHECKS, evaluated, table_findings
from prefect_stagegate.validations.expectation_results import caller_results
from prefect_stagegate.validations.observations import ORDER, Observations, worst
from prefect_stagegate.validations.table_files import ContractTable
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict

VERSION = "3"
"""Raise it when a check of this module changes its meaning: evidence of an older version is then gathered anew."""
MOST_FINDINGS = 50
"""Findings that one piece of evidence lists; it counts the others."""


def gather(observations: Observations, *, digest: str, at: str) -> tuple[Evidence, ...]:
    """Run all checks of the contract and return their evidence, bound to the version's digest and gathered `at`."""
    binding = {"version": digest, "check_version": VERSION}
    results = {name: check(observations) for name, check in CHECKS.items()}
    return tuple(
        Evidence(
            check=name,
            outcome=result.outcome,
            summary=result.summary,
            owner="data",
            findings=_bounded(result.findings),
            measured={**result.measured, "findings": len(result.findings)},
            binding=binding,
            at=at,
        )
        for name, result in results.items()
    )


def _bounded(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst findings first, `MOST_FINDINGS` at most, and one that counts the rest."""
    ordered = sorted(findings, key=lambda finding: ORDER.index(finding.outcome))
    rest = ordered[MOST_FINDINGS:]
    if not rest:
        return tuple(ordered)
    # The rest is sorted, too, so its first finding has the worst outcome of the rest.
    more = Finding(
        "…", count_text(len(rest), "more finding"), "Repair these first, then validate again.", rest[0].outcome
    )
    return (*ordered[:MOST_FINDINGS], more)


def table_result(table: ContractTable, observations: Observations) -> TableResult:
    """The figures of one table."""
    report = observations.reports.get(table.name)
    judgements = report.judgements if report else ()
    verdicts = [judgement.verdict for judgement in judgements]
    outcome = worst([finding.outcome for finding in table_findings(table, observations)])
    return TableResult(
        name=table.name,
        files=len(table.listed),
        rows=sum(file.rows for file in observations.read(table)),
        evaluated=evaluated(verdicts),
        failed=verdicts.count(ExpectationVerdict.FAILED),
        passed=outcome in (Outcome.PASS, Outcome.WARN),
        expectations=caller_results(report),
    )
