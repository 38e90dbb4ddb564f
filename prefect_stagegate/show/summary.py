"""The decision for a run's page, as Markdown: the first screen is read in ten seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect_stagegate.model import DecisionOutcome, Promotion
from prefect_stagegate.show.legible import legible_text, one_line, time_text
from prefect_stagegate.show.markdown import about_line, details
from prefect_stagegate.show.marks import code, link, plain, step
from prefect_stagegate.show.model import Report, legible, without_repeats
from prefect_stagegate.show.next_steps import is_command
from prefect_stagegate.show.rows import Row, Standing
from prefect_stagegate.show.trimming import fitted
from prefect_stagegate.units import count_text, digest_text

DEFECTS = 3
"""The most checks that are listed with their findings."""
STEPS = 5
"""The most steps that are listed; the whole report has all of them."""
LENGTH = 160
"""The most characters of a sentence; a command is never cut."""
_MARKS = {
    DecisionOutcome.ACCEPTED: "✅",
    DecisionOutcome.REFUSED: "❌",
    DecisionOutcome.INCONCLUSIVE: "❔",
    DecisionOutcome.WAITING: "⏳",
}


def to_artifact(report: Report, links: Mapping[str, str] | None = None) -> str:
    """The decision as a run shows it: the summary on the first screen, and everything else below, in 300 kB at most."""
    return fitted(report, lambda fitting: f"{to_summary(fitting, links)}\n---\n\n{details(fitting)}")


def to_summary(report: Report, links: Mapping[str, str] | None = None) -> str:
    """The decision, whose turn it is, and what to do, in at most fifteen lines.

    `links` are addresses of pages with more, by their names.
    """
    report = legible(without_repeats(report))
    standings = [row.standing for row in report.rows]
    fine = f"{standings.count(Standing.FINE)} of {count_text(len(standings), 'check')}"
    steps = [step(text if is_command(text) else _short(text)) for text in _steps(report.steps)]
    listed = "\n".join(f"{number}. {text}" for number, text in enumerate(steps, start=1))
    some = f" ({len(steps)} of {len(report.steps)} steps)" if len(steps) < len(report.steps) else ""
    parts = [
        f"## {_MARKS[report.outcome]} {plain(report.headline)}",
        "\n".join([f"{plain(_short(report.reason))} {fine} fine.", "", *map(_defect, report.defects[:DEFECTS])]),
        *(plain(_short(note)) for note in report.notes[:1]),
        f"**Whose turn:** {plain(_short(report.whose_turn))}",
        f"**What to do{some}:**\n\n{listed}",
        _facts(report, links or {}),
    ]
    return "\n\n".join(parts) + "\n"


def moved_page(moved: Promotion, report: Report | None = None) -> str:
    """The page of a promoted version: what the target's ref names now, and the command to go back.

    It replaces the page of the decision that accepted the version, whose `report` is below it.
    """
    ref = f"{moved.dataset}@{moved.ref}"
    before = code(digest_text(moved.previous)) if moved.previous else "nothing"
    already = moved.previous == moved.digest
    parts = [
        f"## ✅ {plain(ref)} names {digest_text(moved.digest)}",
        "It already named this version." if already else f"Its gate accepted this version. Before, it named {before}.",
        "**Whose turn:** nobody",
    ]
    if moved.previous and not already:
        parts.append(f"**To go back:** {code(f'stagegate rollback {ref} --reason TEXT')}")
    parts.append(f"Version {code(moved.digest)}.")
    page = "\n\n".join(parts) + "\n"
    if report is None:
        return page
    return fitted(report, lambda fitting: f"{page}\n---\n\n## The decision that accepted it\n\n{details(fitting)}")


def _defect(row: Row) -> str:
    """One check's summary; for a check of the data also the first file that it is about."""
    text = f"- **{plain(row.check)}**: {plain(_short(row.summary))}"
    if row.owner.role != "data" or not row.findings:
        return text
    more = f" and {len(row.findings) - 1} more" if len(row.findings) > 1 else ""
    return f"{text} ({code(_short(row.findings[0].subject))}{more})"


def _steps(steps: Sequence[str]) -> Sequence[str]:
    """The first fixes and the last two steps, which are to stage the mended data and to ask the gate again."""
    return (*steps[: STEPS - 2], *steps[-2:]) if len(steps) > STEPS else steps


def _facts(report: Report, links: Mapping[str, str]) -> str:
    accepted = report.outcome is DecisionOutcome.ACCEPTED
    until = f", holds until {time_text(report.expires)}" if accepted and report.expires else ""
    addresses = {name: legible_text(address) for name, address in links.items()} | {"Runbook": report.runbook}
    shown = [link(name, address) for name, address in addresses.items() if address]
    decided = f"Decided {time_text(report.at)}{until}."
    return "  \n".join((about_line(report), " · ".join((decided, *shown))))


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 1].rstrip()}…"
