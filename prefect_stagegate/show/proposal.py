"""The form that asks for an approval: the version, its size, and what it changes for readers of the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefect_stagegate.show.changes import VersionChanges
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.show.marks import code, plain
from prefect_stagegate.show.model import Report, legible
from prefect_stagegate.show.rows import Standing
from prefect_stagegate.units import bytes_text, count_text, digest_text

DEFECTS = 10
"""The most checks to look at that are named."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A version, and how it differs from the version that the target serves."""

    files: int
    bytes: int
    rows: int | None
    """Rows of the contract's tables; None when no check counted them."""
    changes: VersionChanges | None = None
    """None before the target's first version."""


def proposal_page(report: Report, proposal: Proposal, *, until: str, why: str = "") -> str:
    """The text of the form that asks for an approval, as Markdown.

    Args:
        report: The decision that waits.
        proposal: The proposed version.
        until: When the run stops waiting for the answer.
        why: Why the form is shown again; empty the first time.
    """
    report = legible(report)
    fine = sum(row.standing is Standing.FINE for row in report.rows)
    parts = [
        *([f"**{plain(why)}**"] if why else []),
        f"## {plain(report.headline)}",
        f"Answer by {time_text(until)}; without an answer, the request ends as not approved. Who may answer: "
        f"{plain(report.whose_turn)}.",
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in _facts(report, proposal))]),
        f"{fine} of {count_text(len(report.rows), 'check')} are fine. To look at:",
        "\n".join(f"- {code(row.check)} ({row.verdict}): {plain(row.summary)}" for row in report.defects[:DEFECTS]),
        "The whole report is among this run's artifacts.",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(report: Report, proposal: Proposal) -> Iterator[tuple[str, str]]:
    yield "version", code(f"{report.dataset}@{digest_text(report.digest)}")
    yield "requested by", plain(report.requester or "unknown")
    yield "size", f"{count_text(proposal.files, 'file')}, {bytes_text(proposal.bytes)}"
    if proposal.rows is not None:
        yield "rows", f"{proposal.rows:,}"
    if proposal.changes is None:
        yield f"{report.target} serves", "no version"
        return
    yield f"{report.target} serves", code(digest_text(proposal.changes.before))
    yield "what would change", plain(proposal.changes.summary)
