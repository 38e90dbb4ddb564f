"""The contract's checks: each turns the observations about a version into one result. Pure.

    schema         the declared columns, in every file; where none are declared, the same columns in all files
    nonempty       rows, files and expectations: at least one of each
    expectations   what the suites say, by severity
    coverage       files validated, of those that the contract names

A check's outcome is that of its worst finding. From the worst: fail, inconclusive, warn, pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.units import count_text
from prefect_stagegate.validations import table_schema as schema
from prefect_stagegate.validations.expectation_findings import expectation_findings
from prefect_stagegate.validations.expectation_results import recorded_results
from prefect_stagegate.validations.observations import ORDER, Observations, worst
from prefect_stagegate.validations.table_files import ContractTable
from prefect_stagegate.validations.worker.worker_messages import NO_SANDBOX, ExpectationVerdict

NO_CONTRACT = "the spec has no contract"
NAME_A_SUITE = "Name a `suite:` of a table in the spec's contract, or leave `expectations` out of the gate."
TABLES = 5
"""The most tables that a summary names."""
NOT_JUDGED = "its rows were not judged"
WRITE_ONE = "Write a `contract:` into the spec, or leave the checks that need one out of the gate."


@dataclass(frozen=True, slots=True)
class ContractCheckResult:
    """A check's outcome, with the findings and figures that it rests on."""

    outcome: Outcome
    summary: str
    findings: Sequence[Finding]
    measured: Mapping[str, Any]


def _result(
    findings: Sequence[Finding], good: str, measured: Mapping[str, Any], *, bad: str = ""
) -> ContractCheckResult:
    """Take the worst finding's outcome. The summary is `good` when the check passes, else `bad`."""
    outcome = worst([finding.outcome for finding in findings])
    return ContractCheckResult(outcome, good if outcome is Outcome.PASS or not bad else bad, findings, measured)


def _inconclusive(summary: str, measured: Mapping[str, Any] | None = None, *, fix: str = "") -> ContractCheckResult:
    findings = (Finding("contract", summary, fix, Outcome.INCONCLUSIVE),) if fix else ()
    return ContractCheckResult(Outcome.INCONCLUSIVE, summary, findings, measured or {})


# ── the four checks ─────────────────────────────────────────────────────────────────────────────────────────────


def _schema(observations: Observations) -> ContractCheckResult:
    if not observations.files.matches:
        return _inconclusive(NO_CONTRACT, fix=WRITE_ONE)
    if not observations.tables:
        fix = "Name tables in the spec's contract, or require no `schema`."
        return _inconclusive("the contract names no table", fix=fix)
    declared = sum(len(table.spec.columns) for table in observations.tables)
    findings = [finding for table in observations.tables for finding in _schema_findings(table, observations)]
    opened = sum(len(table.opened) for table in observations.tables)
    wrong = len(observations.breaking_schema())
    promised = f"{count_text(declared, 'declared column')} as promised" if declared else "the same columns"
    return _result(
        findings,
        f"{promised} in {_files_text(observations.tables)}",
        {"columns": declared, "files": opened, "files_breaking": wrong},
        bad=f"{wrong} of {count_text(opened, 'file')} break the declared columns" if wrong else _headline(findings),
    )


def _files_text(tables: Sequence[ContractTable]) -> str:
    """How many files were opened; of several tables, how many of each, since only those are compared."""
    if len(tables) == 1:
        return count_text(len(tables[0].opened), "file")
    counts = [f"{table.name} ({count_text(len(table.opened), 'file')})" for table in tables]
    more = len(counts) - TABLES
    return f"all files of each table: {', '.join(counts[:TABLES])}{f' and {more} more' if more > 0 else ''}"


def _schema_findings(table: ContractTable, observations: Observations) -> list[Finding]:
    """What is wrong with the columns of one table, and which files' columns nobody could read."""
    if not table.listed:
        problem = f"has no files: {table.spec.files} matches none, so its columns are unknown"
        return [Finding(f"table {table.name}", problem, "Deliver them, or correct the glob.", Outcome.INCONCLUSIVE)]
    findings = schema.findings(table.name, table.spec.columns, table.opened, table.problems) if table.opened else []
    findings += observations.left_out(table, {file.path for file in table.opened}, "its columns are unknown")
    return [*findings, *_misspelled(table)] if table.opened else findings


def _misspelled(table: ContractTable) -> Iterator[Finding]:
    """Names under `pii` that no file has."""
    for name in table.unknown_personal:
        problem = f"pii names {name}, which no file has: {did_you_mean(name, table.columns)}"
        fix = "Correct the name in the contract. Until then, results mask all columns of the table."
        yield Finding(f"table {table.name}", problem, fix, Outcome.WARN)


def _nonempty(observations: Observations) -> ContractCheckResult:
    findings = [finding for table in observations.tables for finding in _emptiness_findings(table, observations)]
    if not observations.files.listed:
        findings.append(Finding("the dataset", "has no files", "Look at the sources' URLs and `include:`."))
    rows = sum(table.rows for table in observations.tables)
    expectations = sum(table.expectations for table in observations.tables)
    files = count_text(observations.files.listed, "file")
    counts = f"{files}, {count_text(rows, 'row')}, {count_text(expectations, 'expectation')}"
    measured = {
        "files": observations.files.listed,
        "bytes": observations.files.bytes,
        "rows": rows,
        "expectations": expectations,
    }
    return _result(findings, counts if observations.tables else files, measured, bad=_headline(findings))


def _emptiness_findings(table: ContractTable, observations: Observations) -> list[Finding]:
    """Whether the table lacks files, rows or expectations, and which of its files have no rows, or may have some."""
    subject = f"table {table.name}"
    if not table.listed:
        problem = f"has no files: {table.spec.files} matches none"
        return [Finding(subject, problem, "Deliver them, or correct the glob.")]
    findings = []
    if any(file.rows for file in table.opened):
        empty = [file.path for file in table.opened if not file.rows]
        findings += [Finding(path, "has no rows", "Deliver its rows.", Outcome.WARN) for path in empty]
    # The rows that the table may have are in the files that nobody could open.
    elif len(table.opened) < len(table.listed):
        findings += observations.left_out(table, {file.path for file in table.opened}, "its rows are unknown")
    else:
        findings.append(
            Finding(subject, f"has no rows in {count_text(len(table.opened), 'file')}", "Deliver its rows.")
        )
    if table.spec.suite is not None and not table.expectations:
        findings.append(Finding(subject, "has a suite without expectations", "Write at least one into its suite."))
    return findings


def _expectations(observations: Observations) -> ContractCheckResult:
    if not observations.files.matches:
        return _inconclusive(NO_CONTRACT, fix=WRITE_ONE)
    with_suite = [table for table in observations.tables if table.spec.suite is not None]
    suites = {table.name: table.suite_digest for table in with_suite}
    if not any(table.expectations for table in with_suite):
        return _inconclusive("the contract has no expectations", {"suites": suites}, fix=NAME_A_SUITE)
    findings = [
        finding for table in with_suite for finding in expectation_findings(table, observations.reports.get(table.name))
    ]
    read = {table.name: observations.read(table) for table in with_suite}
    for table in with_suite:
        findings += observations.left_out(table, {file.path for file in read[table.name]}, NOT_JUDGED)
    verdicts = [judgement.verdict for report in observations.reports.values() for judgement in report.judgements]
    total = sum(table.expectations for table in with_suite)
    kept = verdicts.count(ExpectationVerdict.PASSED)
    idle = verdicts.count(ExpectationVerdict.NOT_APPLICABLE)
    counts = {
        "asked": total,
        "evaluated": evaluated(verdicts),
        "failed": verdicts.count(ExpectationVerdict.FAILED),
        "errored": verdicts.count(ExpectationVerdict.ERRORED),
        "not_applicable": idle,
    }
    rows = sum(file.rows for files in read.values() for file in files)
    verb = "holds" if total == 1 else "hold"
    summary = f"{kept} of {count_text(total, 'expectation')} {verb} over {count_text(rows, 'row')}"
    listed = sum(len(table.listed) for table in with_suite)
    if unjudged := listed - sum(map(len, read.values())):
        summary = f"{unjudged} of {count_text(listed, 'file')} could not be judged; in the others, {summary}"
    if errored := counts["errored"]:
        summary += f"; {errored} could not be evaluated"
    if idle:
        summary += f"; {count_text(idle, 'expectation is', 'expectations are')} not applicable"
    files_read = {name: report.read for name, report in observations.reports.items() if report.read is not None}
    engines = Counter(judgement.engine for report in observations.reports.values() for judgement in report.judgements)
    # A table of which no expectation was applicable has a report that no process made.
    sandboxes = sorted({report.sandbox for report in observations.reports.values()} - {NO_SANDBOX})
    result = _result(
        findings,
        summary,
        {
            **counts,
            "rows": rows,
            "table_rows": {table.name: table.rows for table in observations.tables},
            "suites": suites,
            "parameters": {name: dict(used) for name, used in observations.parameters.items() if used},
            "files_read": files_read,
            "judged_elsewhere": {name: count for name, count in sorted(engines.items()) if name},
            "sandbox": "; ".join(sandboxes) or NO_SANDBOX,
            **recorded_results(list(observations.reports.values())),
        },
    )
    # Findings that decide nothing must not make a suite pass of which nothing was evaluated.
    nothing = result.outcome is Outcome.PASS and idle == total
    return replace(result, outcome=Outcome.NOT_APPLICABLE) if nothing else result


def evaluated(verdicts: Sequence[ExpectationVerdict]) -> int:
    """How many expectations were evaluated, whatever came of it."""
    return sum(verdict in (ExpectationVerdict.PASSED, ExpectationVerdict.FAILED) for verdict in verdicts)


def _coverage(observations: Observations) -> ContractCheckResult:
    files = observations.files
    if not files.matches:
        return _inconclusive(NO_CONTRACT, fix=WRITE_ONE)
    unmatched = [
        Finding(glob, "matches no file of the dataset", "Deliver the files, or correct the contract's glob.")
        for glob, paths in files.matches.items()
        if not paths
    ]
    unreadable = observations.unreadable()
    # A file counts once: as one with a defect, or as left out for its columns.
    breaking = observations.breaking_schema() - set(unreadable)
    validated = files.matched - len(unreadable) - len(breaking)
    others = files.listed - len({path for paths in files.matches.values() for path in paths})
    summary = f"{validated} of {count_text(files.matched, 'file')} validated"
    for count, clause in (
        (len(unreadable), "with a defect"),
        (len(breaking), "left out for the columns"),
        (len(unmatched), "of the contract's globs without a file"),
        (files.not_drawn, "left out by a sample"),
        (others, "not named by the contract"),
    ):
        summary += f"; {count} {clause}" if count else ""
    wrong = [
        finding
        for table in observations.tables
        for finding in observations.left_out(table, {*table.listed} - breaking, NOT_JUDGED, Outcome.FAIL)
    ]
    findings = [*unreadable.values(), *wrong, *unmatched]
    outcome = worst([finding.outcome for finding in findings])
    measured = {
        "validated": validated,
        "named": files.matched,
        "listed": files.listed,
        "unreadable": len(unreadable),
        "not_drawn": files.not_drawn,
        "decoded": files.decoded,
        "decoded_before": files.decoded_before,
        "probe_sandbox": files.sandbox,
    }
    return ContractCheckResult(outcome, summary, findings, measured)


def _headline(findings: Sequence[Finding]) -> str:
    """The worst finding in a few words, and how many more there are; empty without findings."""
    if not findings:
        return ""
    first = min(findings, key=lambda finding: ORDER.index(finding.outcome))
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{first.subject} {first.problem}{more}"


def table_findings(table: ContractTable, observations: Observations) -> list[Finding]:
    """Everything that is wrong with one table and its files."""
    unreadable = observations.unreadable()
    return [
        *_schema_findings(table, observations),
        *_emptiness_findings(table, observations),
        *(expectation_findings(table, observations.reports.get(table.name)) if table.suite is not None else []),
        *(unreadable[path] for path in table.listed if path in unreadable),
    ]


CHECKS: dict[str, Callable[[Observations], ContractCheckResult]] = {
    "schema": _schema,
    "nonempty": _nonempty,
    "expectations": _expectations,
    "coverage": _coverage,
}
