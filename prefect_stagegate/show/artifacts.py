"""Documents of runs beside reports: a promotion, a validation, a request for approval, objects that failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prefect_stagegate.model import Decision, FailedObject, Promotion, Validation
from prefect_stagegate.model.manifest import Seal
from prefect_stagegate.show.document import Cell, Document, Outcomes, Pairs, Section, Table, Text
from prefect_stagegate.show.expectations import read_results
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.show.model import Report
from prefect_stagegate.show.report_document import document_of, expectation_tables
from prefect_stagegate.show.rows import row_of
from prefect_stagegate.units import bytes_text, count_text, digest_text

COUNTING = ("nonempty", "expectations")
"""The checks that count rows. The first counts the rows of all tables of the contract."""
LISTED = 20
"""The most failed objects that a terminal or a log lists."""


def promotion_document(moved: Promotion, report: Report | None = None) -> Document:
    """What the target's ref names now, and the command to go back; below it the decision that accepted the version."""
    ref = f"{moved.dataset}@{moved.ref}"
    before = f"`{digest_text(moved.previous)}`" if moved.previous else "nothing"
    already = moved.previous == moved.digest
    back = f"To go back: `stagegate rollback {ref} --reason TEXT`"
    decided = document_of(report).sections if report else ()
    return Document(
        f"{ref} names {digest_text(moved.digest)}",
        "pass",
        "It already named this version." if already else f"Its gate accepted this version. Before, it named {before}.",
        turn="nobody",
        sections=(
            Section("", ((Text(back),) if moved.previous and not already else ())),
            Section("", (Text(f"Version `{moved.digest}`."),)),
            Section("The decision that accepted it", (Text(report.reason),) if report else ()),
            *decided,
        ),
    )


def validation_document(validation: Validation) -> Document:
    """Whether the version keeps its contract, each check, what was found, and the recorded results of expectations."""
    verdict = "keeps its contract" if validation.passed else "does not keep its contract"
    # The recorded form: the page is read by more people than the data.
    results = [result for item in validation.evidence for result in read_results(item)]
    rows = sorted((row_of(item, {}) for item in validation.evidence), key=lambda row: row.standing)
    return Document(
        f"{'Trial: ' if validation.is_trial else ''}{validation.dataset} {verdict}",
        "pass" if validation.passed else "fail",
        facts=(("version", validation.digest),),
        sections=(Section("", (Outcomes(tuple(rows)),)), Section("Expectations", expectation_tables(results))),
    )


def proposal_document(report: Report, decision: Decision, sums: Seal, *, until: str, why: str = "") -> Document:
    """The form that asks for an approval: the version, its size, and what it changes for readers of the target.

    Args:
        report: The report of the decision.
        decision: The decision, which waits.
        sums: The size of the version.
        until: When the run stops waiting for the answer.
        why: Why the form is shown again; empty the first time.
    """
    measured = {evidence.check: evidence.measured for evidence in decision.checks}
    rows = next((measured[name].get("rows") for name in COUNTING if name in measured), None)
    facts = (
        ("version", f"{report.dataset}@{digest_text(report.digest)}"),
        ("requested by", report.asked_by or "unknown"),
        ("size", f"{count_text(sums.files, 'file')}, {bytes_text(sums.bytes)}"),
        *([("rows", f"{rows:,}")] if rows is not None else []),
        (f"{report.target} serves", digest_text(report.serves) if report.serves else "no version"),
        *([("what would change", report.changes.summary)] if report.changes else []),
        *report.briefs,
    )
    fine = f"{sum(row.is_fine for row in report.rows)} of {count_text(len(report.rows), 'check')}"
    parts = (
        Text(f"Who may answer: {report.whose_turn}."),
        Pairs(facts),
        Text(f"{fine} are fine. To look at:"),
        Outcomes(report.rows, is_brief=True),
        Text("The whole report is among this run's artifacts."),
    )
    lead = f"Answer by {time_text(until)}; without an answer, the request ends as not approved."
    return Document(report.headline, lead=lead, notes=(why,) if why else (), sections=(Section("", parts),))


def failed_lines(failed: Sequence[FailedObject]) -> Iterator[str]:
    """A line for each of the first `LISTED` objects, and one that counts the rest."""
    for item in failed[:LISTED]:
        yield f"  {item.path}: {item.reason}"
    if len(failed) > LISTED:
        yield f"  and {len(failed) - LISTED} more"


def failed_document(dataset: str, failed: Sequence[FailedObject], *, digest: str = "") -> Document:
    """The objects that could not be staged; the digest is that of the version made without them, if any."""
    rows = tuple((Cell(f.path, is_code=True), *map(Cell, (f.source, f.error, f.reason))) for f in failed)
    return Document(
        f"{count_text(len(failed), 'object')} of {dataset} could not be staged",
        "fail",
        f"Version `{digest}` was made without them." if digest else "No version was made, and no ref moved.",
        sections=(Section("", (Table(("Object", "Source", "Error", "Reason"), rows),)),),
    )
