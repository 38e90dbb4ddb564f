"""The report of a decision as a document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import reduce
from typing import Any

from prefect_stagegate.model import DecisionOutcome, ExpectationResult
from prefect_stagegate.model.transfers import Bottleneck, TransferRecord
from prefect_stagegate.show.changes import ChangedFile, VersionChanges
from prefect_stagegate.show.document import Cell, Document, Outcomes, Pairs, Part, Section, Shares, Table, Text, merged
from prefect_stagegate.show.expectations import (
    LONGEST_EXAMPLE,
    by_table,
    refused_text,
    seconds_text,
    shown,
    verdict_text,
)
from prefect_stagegate.show.legible import shortened, time_text
from prefect_stagegate.show.model import PastEvent, Report
from prefect_stagegate.show.rows import name_repeats
from prefect_stagegate.units import bytes_text, count_text, digest_text

TIERS = {"source": "source", "mirror": "mirror", "peer": "other node", "cache": "this node's cache"}
SIDES: dict[Bottleneck, str] = {"network": "waiting for bytes", "hashing": "hashing", "disk": "writing to disk"}
_NAMES: dict[Bottleneck, str] = {"network": "The network", "hashing": "Hashing", "disk": "The disk"}
_TONES = {"failed": "fail", "passed": "pass"}
_EVENTS = {"rolled back to": "back", "staged": "back"}


def json_values(report: Report) -> dict[str, Any]:
    """The fields of `Report` and `accepted`, with the values of sections; each row's standing is written by name."""
    values = asdict(replace(report, sections=())) | {"accepted": report.outcome is DecisionOutcome.ACCEPTED}
    del values["sections"]
    # `asdict` leaves the standing as a number.
    for row, written in zip(report.rows, values["rows"], strict=True):
        written["standing"] = row.standing.name.lower()
    return reduce(merged, (section.values for section in report.sections), values)


def document_of(report: Report) -> Document:
    """Lay a report out."""
    # Programs want each row whole, readers no finding twice.
    rows = tuple(name_repeats(report.rows))
    accepted_until = report.expires if report.outcome is DecisionOutcome.ACCEPTED else ""
    until = f", holds until {time_text(accepted_until)}" if accepted_until else ""
    return Document(
        title=report.headline,
        tone=report.outcome.value,
        lead=report.reason,
        facts=report.about,
        notes=report.notes,
        turn=report.whose_turn,
        turns=report.turns,
        steps=report.steps,
        sections=(Section("", (Outcomes(rows),)), *_details(report), _basis(report)),
        when=f"Decided {time_text(report.at)}{until}.",
        values=json_values(report),
    )


def _details(report: Report) -> Iterator[Section]:
    results = (result for row in report.rows for result in row.results)
    left = sum(row.results_left_out for row in report.rows)
    rest = [Text(f"{left} more results are not in the evidence.")] if left else []
    yield Section("Expectations", (*expectation_tables(results), *rest))
    yield from report.sections
    if report.changes:
        yield Section("What changed", tuple(_changes(report, report.changes)))
    if report.transfer:
        yield Section("Transfer", tuple(_transfer(report.transfer)))
    if report.past:
        rows = tuple(_past_row(report, event) for event in report.past)
        more = Text(f"The whole history: `stagegate history {report.dataset}@{report.target}`")
        yield Section(f"History of {report.target}", (Table(("When", "What", "Version", "Who", "Why"), rows), more))


def expectation_tables(results: Iterable[ExpectationResult]) -> tuple[Table, ...]:
    """The results of the expectations of each table, the failed ones first."""
    head = ("Expectation", "Verdict", "Found", "Examples", "Time")
    return tuple(
        Table(
            head,
            tuple(map(_expectation_row, of_table)),
            table,
            fine=sum(result.verdict == "passed" for result in of_table),
        )
        for table, of_table in by_table(results).items()
    )


def _expectation_row(result: ExpectationResult) -> tuple[Cell, ...]:
    found = refused_text(result)
    return (
        Cell(shown(result.expectation), shown(result.column), is_code=True),
        Cell(shown(verdict_text(result)), shown(result.severity), tone=_TONES.get(result.verdict, "inconclusive")),
        Cell(f"{found} refused" if found else shown(result.observed), is_code=not found),
        Cell("; ".join(shown(example, LONGEST_EXAMPLE) for example in result.examples), is_code=True),
        Cell(seconds_text(result.seconds)),
    )


def _changes(report: Report, changes: VersionChanges) -> Iterator[Part]:
    meanwhile = "" if report.outcome is DecisionOutcome.ACCEPTED else " meanwhile"
    versions = [f"{report.dataset}@{digest_text(digest)}" for digest in (changes.before, report.digest)]
    yield Text(f"Against `{versions[0]}`, which {report.target} serves{meanwhile}: {changes.summary}.")
    counts = ", ".join(f"{total.files:,} {kind}" for kind, total in changes.totals)
    sizes = ", ".join(f"{bytes_text(total.bytes)} {kind}" for kind, total in changes.totals)
    rows = (
        ("files", f"{changes.files:,}", f"{changes.files_before:,}", counts),
        ("bytes", bytes_text(changes.bytes), bytes_text(changes.bytes_before), sizes),
    )
    yield Table(("What", "This version", "Before", "Difference"), tuple(tuple(map(Cell, row)) for row in rows))
    if changes.listed:
        files = tuple(map(_file_row, changes.listed))
        which = "the largest differences" if changes.more else "all"
        head = ("File", "Change", "Size", "Before")
        yield Table(head, files, "Files that differ", which, more=changes.more, is_folded=True)
    yield Text(f"All files: `stagegate diff {' '.join(versions)}`")


def _file_row(file: ChangedFile) -> tuple[Cell, ...]:
    sizes = ("" if size is None else bytes_text(size) for size in (file.size, file.size_before))
    return (Cell(shortened(file.path, 240), is_code=True), Cell(file.change), *map(Cell, sizes))


def transfer_text(transfer: TransferRecord) -> str:
    """How much came in which time, and how fast."""
    moved = f"{bytes_text(transfer.fetched)} in {transfer.seconds:.1f} s ({bytes_text(transfer.rate)}/s)"
    resumed = f"; {bytes_text(transfer.resumed)} were there from an interrupted run" if transfer.resumed else ""
    retries = f"; {count_text(transfer.retries, 'retry', 'retries')}" if transfer.retries else ""
    waited = f", {transfer.backoff:.1f} s of waiting before them" if transfer.backoff else ""
    return f"{moved}{resumed}{retries}{waited}"


def bottleneck_text(transfer: TransferRecord) -> str:
    """What held the transfer up, with the shares of time."""
    shares = ", ".join(f"{share:.0%} {SIDES[side]}" for side, share in transfer.shares.items())
    return f"{_NAMES[transfer.bottleneck]} was the bottleneck: {shares}"


def _transfer(transfer: TransferRecord) -> Iterator[Part]:
    yield Text(f"{transfer_text(transfer)}.")
    shares = ((side, share, f"{share:.0%} {SIDES[side]}") for side, share in transfer.shares.items())
    yield Shares(bottleneck_text(transfer), tuple(shares))
    rows = (
        (TIERS[place.tier], shortened(place.name, 240), f"{place.objects:,}", bytes_text(place.bytes))
        for place in transfer.traffic
    )
    head, cells = ("From", "Place", "Objects", "Bytes"), tuple(tuple(map(Cell, row)) for row in rows)
    yield Table(head, cells, more=transfer.more_places)
    yield Text(f"Staged on {transfer.node or 'an unknown node'}, {time_text(transfer.at)}.")


def _past_row(report: Report, event: PastEvent) -> tuple[Cell, ...]:
    return (
        Cell(time_text(event.at)),
        Cell(event.what, tone=_EVENTS.get(event.what, event.what)),
        Cell(digest_text(event.digest), "this version" if event.digest == report.digest else "", is_code=True),
        Cell(event.who),
        Cell(event.why),
    )


def _basis(report: Report) -> Section:
    facts = (
        ("Version", f"{report.dataset}@{report.digest}"),
        (f"Policy of {report.target}", report.policy),
        ("Environment", report.environment),
        ("Decided", time_text(report.at)),
        ("Holds until", time_text(report.expires) or "something that it depends on changes"),
        ("Asked for by", report.asked_by or "nobody named"),
        *([("Runbook", report.runbook)] if report.runbook else []),
    )
    return Section("What was judged", (Pairs(facts),))
