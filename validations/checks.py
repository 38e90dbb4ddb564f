"""The contract's checks: what the findings about a version answer to each. Pure.

    schema         the declared columns, in every file; where none are declared, the same columns in all files
    nonempty       rows, files and expectations: at least one of each
    expectations   what the suites say, by severity
    coverage       files validated, of those that the contract names

An outcome is the worst of its findings': fail, then inconclusive, then warn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.units import count_text
from prefect_stagegate.validations import schema
from prefect_stagegate.validations.expectations import expectation_findings
from prefect_stagegate.validations.found import ORDER, Found, worst
from prefect_stagegate.validations.records import Verdict
from prefect_stagegate.validations.tables import Table

NO_CONTRACT = "the spec has no contract"
WRITE_ONE = "Write a `contract:` into the spec, or leave the checks that need one out of the gate."


@dataclass(frozen=True, slots=True)
class Answer:
    """A check's outcome, with what it rests on."""

    outcome: Outcome
    summary: str
    findings: Sequence[Finding]
    measured: Mapping[str, Any]


def _answer(findings: Sequence[Finding], good: str, measured: Mapping[str, Any], *, bad: str = "") -> Answer:
    """The worst of the findings' outcomes; `good` says what was looked at, `bad` what is wrong."""
    outcome = worst([finding.outcome for finding in findings])
    return Answer(outcome, good if outcome is Outcome.PASS or not bad else bad, findings, measured)


def _inconclusive(summary: str, measured: Mapping[str, Any] | None = None, *, fix: str = "") -> Answer:
    findings = (Finding("contract", summary, fix, Outcome.INCONCLUSIVE),) if fix else ()
    return Answer(Outcome.INCONCLUSIVE, summary, findings, measured or {})


# ── the four checks ─────────────────────────────────────────────────────────────────────────────────────────────


def _schema(found: Found) -> Answer:
    if not found.files.matches:
        return _inconclusive(NO_CONTRACT, fix=WRITE_ONE)
    if not found.tables:
        fix = "Name tables in the spec's contract, or require no `schema`."
        return _inconclusive("the contract names no table", fix=fix)
    declared = sum(len(table.spec.columns) for table in found.tables)
    findings = [finding for table in found.tables for finding in _schema_findings(table)]
    opened = sum(len(table.opened) for table in found.tables)
    wrong = len(found.breaking_schema())
    promised = f"{count_text(declared, 'declared column')} as promised" if declared else "the same columns"
    return _answer(
        findings,
        f"{promised} in {count_text(opened, 'file')}",
        {"columns": declared, "files": opened, "files_breaking": wrong},
        bad=f"{wrong} of {count_text(opened, 'file')} break the declared columns" if wrong else _headline(findings),
    )


def _schema_findings(table: Table) -> list[Finding]:
    """What is wrong with the columns of one table, and whether they could be seen at all."""
    if not table.listed:
        problem = f"has no files: {table.spec.files} names none, so its columns are unknown"
        return [Finding(f"table {table.name}", problem, "Deliver them, or mend the glob.", Outcome.INCONCLUSIVE)]
    findings = schema.findings(table.name, table.spec.columns, table.opened, table.problems) if table.opened else []
    if unopened := len(table.listed) - len(table.opened):
        findings.append(_unknown(table, unopened, "could not be opened, so their columns are unknown"))
    return findings


def _unknown(table: Table, count: int, what: str) -> Finding:
    """What nobody could look at is not known to be right."""
    problem = f"{count} of {count_text(len(table.listed), 'file')} {what}"
    return Finding(f"table {table.name}", problem, "See `coverage`.", Outcome.INCONCLUSIVE)


def _nonempty(found: Found) -> Answer:
    findings = [finding for table in found.tables for finding in _emptiness_findings(table)]
    if not found.files.listed:
        findings.append(Finding("the dataset", "has no files", "Look at the sources' URLs and `include:`."))
    rows = sum(table.rows for table in found.tables)
    expectations = sum(table.expectations for table in found.tables)
    files = count_text(found.files.listed, "file")
    counts = f"{files}, {count_text(rows, 'row')}, {count_text(expectations, 'expectation')}"
    measured = {"files": found.files.listed, "bytes": found.files.bytes, "rows": rows, "expectations": expectations}
    return _answer(findings, counts if found.tables else files, measured, bad=_headline(findings))


def _emptiness_findings(table: Table) -> list[Finding]:
    """What a table lacks that it can't be without: files, rows, expectations; and its files that have no rows."""
    subject = f"table {table.name}"
    if not table.listed:
        return [Finding(subject, f"has no files: {table.spec.files} names none", "Deliver them, or mend the glob.")]
    findings = []
    if table.opened and not any(file.rows for file in table.opened):
        findings.append(
            Finding(subject, f"has no rows in {count_text(len(table.opened), 'file')}", "Deliver its rows.")
        )
    else:
        empty = [file.path for file in table.opened if not file.rows]
        findings += [Finding(path, "has no rows", "Deliver its rows.", Outcome.WARN) for path in empty]
    if table.spec.suite is not None and not table.expectations:
        findings.append(Finding(subject, "has a suite without expectations", "Write at least one into its suite."))
    return findings


def _expectations(found: Found) -> Answer:
    if not found.files.matches:
        return _inconclusive(NO_CONTRACT, fix=WRITE_ONE)
    with_suite = [table for table in found.tables if table.spec.suite is not None]
    suites = {table.name: table.suite_digest for table in with_suite}
    if not any(table.expectations for table in with_suite):
        return _inconclusive("the contract has no expectations", {"suites": suites})
    findings = [
        finding for table in with_suite for finding in expectation_findings(table, found.reports.get(table.name))
    ]
    left_out = [(table, len(table.listed) - len(found.read(table))) for table in with_suite]
    findings += [_unknown(table, count, "could not be judged") for table, count in left_out if count]
    verdicts = [judgement.verdict for report in found.reports.values() for judgement in report.judgements]
    asked = sum(table.expectations for table in with_suite)
    kept = verdicts.count(Verdict.PASSED)
    counts = {
        "asked": asked,
        "evaluated": len(verdicts) - verdicts.count(Verdict.ERRORED),
        "failed": verdicts.count(Verdict.FAILED),
        "errored": verdicts.count(Verdict.ERRORED),
    }
    rows = sum(file.rows for table in with_suite for file in found.read(table))
    verb = "holds" if asked == 1 else "hold"
    summary = f"{kept} of {count_text(asked, 'expectation')} {verb} over {count_text(rows, 'row')}"
    if unjudged := sum(count for _, count in left_out):
        listed = sum(len(table.listed) for table, _ in left_out)
        summary = f"{unjudged} of {count_text(listed, 'file')} could not be judged; in the others, {summary}"
    if errored := counts["errored"]:
        summary += f"; {errored} could not be evaluated"
    sandboxes = sorted({report.sandbox for report in found.reports.values()})
    return _answer(
        findings, summary, {**counts, "rows": rows, "suites": suites, "sandbox": sandboxes[0] if sandboxes else "none"}
    )


def _coverage(found: Found) -> Answer:
    files = found.files
    if not files.matches:
        return _inconclusive(NO_CONTRACT, fix=WRITE_ONE)
    unmatched = [
        Finding(glob, "names no file of the dataset", "Deliver the files, or mend the contract's glob.")
        for glob, paths in files.matches.items()
        if not paths
    ]
    unreadable = found.unreadable()
    breaking = found.breaking_schema() - set(unreadable)
    validated = files.named - len(unreadable) - len(breaking)
    others = files.listed - files.named
    summary = f"{validated} of {count_text(files.named, 'file')} validated"
    for count, clause in (
        (len(unreadable), "unreadable"),
        (len(breaking), "left out for the columns (see schema)"),
        (len(unmatched), "of the contract's globs without a file"),
        (others, "not named by the contract"),
    ):
        summary += f"; {count} {clause}" if count else ""
    findings = [*unreadable.values(), *unmatched]
    outcome = worst([finding.outcome for finding in findings] + [Outcome.FAIL] * bool(breaking))
    measured = {"validated": validated, "named": files.named, "listed": files.listed, "unreadable": len(unreadable)}
    return Answer(outcome, summary, findings, measured)


def _headline(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    first = min(findings, key=lambda finding: ORDER.index(finding.outcome))
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{first.subject} {first.problem}{more}"


def table_findings(table: Table, found: Found) -> list[Finding]:
    """Everything that is wrong with one table and its files."""
    unreadable = found.unreadable()
    return [
        *_schema_findings(table),
        *_emptiness_findings(table),
        *(expectation_findings(table, found.reports.get(table.name)) if table.suite is not None else []),
        *(unreadable[path] for path in table.listed if path in unreadable),
    ]


CHECKS: dict[str, Callable[[Found], Answer]] = {
    "schema": _schema,
    "nonempty": _nonempty,
    "expectations": _expectations,
    "coverage": _coverage,
}
