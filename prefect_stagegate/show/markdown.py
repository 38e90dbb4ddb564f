"""The report as Markdown, for Prefect's artifacts, pull requests and chats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prefect_stagegate.model import ExpectationResult
from prefect_stagegate.show.document import Section, Table
from prefect_stagegate.show.expectations import HEAD, cells
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.show.marks import code, folded, named, plain, step
from prefect_stagegate.show.model import Report, legible, without_repeats
from prefect_stagegate.show.past_events import past_cells
from prefect_stagegate.show.traffic import HEAD as TRAFFIC_HEAD
from prefect_stagegate.show.traffic import bottleneck_text, traffic_cells, transfer_text
from prefect_stagegate.units import digest_text

FINDINGS = 200
"""The most findings that are listed, since Prefect refuses artifacts above a size."""


def to_markdown(report: Report) -> str:
    """The decision, whose turn it is, what to do, the findings of each check, and all checks."""
    report = legible(without_repeats(report))
    parts = [
        f"## {plain(report.headline)}",
        f"**{report.outcome.value.capitalize()}.** {plain(report.reason)}",
        about_line(report),
        *_lines(f"- {step(note)}" for note in report.notes),
        f"**Whose turn:** {plain(report.whose_turn)}",
        *_turns(report),
        "**What to do:**",
        "\n".join(f"{number}. {step(fix)}" for number, fix in enumerate(report.steps, start=1)),
        *_details(report),
    ]
    return "\n\n".join(parts) + "\n"


def details(report: Report) -> str:
    """What stands below the decision: findings, checks, tables, changes, the transfer, the past, what was judged."""
    report = legible(without_repeats(report))
    return "\n\n".join(_details(report)) + "\n"


def _details(report: Report) -> list[str]:
    return [
        *_defects(report),
        "### All checks",
        *folded(report.tally_text, [f"{row.check}: {row.verdict}, {row.owner}: {row.summary}" for row in report.rows]),
        *expectation_lists(report.expectations),
        *([f"{report.results_left_out} more are not in the evidence."] if report.results_left_out else []),
        *_sections(report.sections),
        *_changes(report),
        *_transfer(report),
        *_past(report),
        _facts(report),
    ]


def about_line(report: Report) -> str:
    """The version, the policy and what the target serves, in one line."""
    return " · ".join(
        f"{plain(name)} {code(value) if 'sha256:' in value else plain(value)}" for name, value in report.about
    )


def _turns(report: Report) -> list[str]:
    return _lines(
        f"- {plain(str(turn))}" + "".join(f"\n  - {step(fix)}" for fix in turn.fixes) for turn in report.turns
    )


def _defects(report: Report) -> list[str]:
    """A heading for each check, and a list of its findings."""
    parts, room = [], FINDINGS
    for row in report.defects:
        if room <= 0:
            break
        found = "\n".join(
            f"- {code(item.subject)}: {plain(item.problem)}{f' → {step(item.fix)}' if item.fix else ''}"
            for item in row.listed_findings[:room]
        )
        room -= len(row.listed_findings)
        parts += [f"#### {row.check}", f"{row.verdict}, {plain(str(row.owner))}: {plain(row.summary)}", found]
    left = sum(len(row.listed_findings) for row in report.defects) - FINDINGS
    more = [f"{left} more are in the other reports."] if left > 0 else []
    return ["### What was found", *parts, *more] if parts else []


def expectation_lists(by_table: Mapping[str, Sequence[ExpectationResult]]) -> list[str]:
    """The expectations that did not pass, over all tables, and those that did, folded."""
    rows = [(table, result.verdict == "passed", cells(result)) for table in by_table for result in by_table[table]]
    failed = [f"- {plain(table)}: {_expectation(_as_code(texts))}" for table, is_passed, texts in rows if not is_passed]
    passed = [f"{table}: {_expectation(texts)}" for table, is_passed, texts in rows if is_passed]
    parts = [*_lines(failed), *folded(f"{len(passed)} passed", passed)]
    return ["### Expectations", *parts] if parts else []


def _expectation(texts: Sequence[str]) -> str:
    return f"{texts[0]}: {named(HEAD[1:], texts[1:])}"


def _as_code(texts: Sequence[str]) -> list[str]:
    """The expectation, its column, its observed value and its examples as code, since they may look like markup."""
    expectation, column, severity, verdict, observed, refused, examples, time = texts
    return [code(expectation), code(column), severity, verdict, code(observed), refused, code(examples), time]


def _lines(lines: Iterable[str]) -> list[str]:
    """The lines as one part of the page; none without lines."""
    part = "\n".join(lines)
    return [part] if part else []


def _sections(sections: Iterable[Section]) -> list[str]:
    """The tables of each section: a summary in a line, else each row in one."""
    shown = [(section.title, _lines(map(_table, section.parts))) for section in sections if section.parts]
    return [part for title, lines in shown for part in (f"### {plain(title)}", *lines)]


def _table(table: Table) -> str:
    if table.summary:
        return f"- {code(table.title)}: {plain(table.summary)}"
    return "\n".join(f"- {plain(named(table.head, [cell.text for cell in row]))}" for row in table.rows)


def _changes(report: Report) -> list[str]:
    """How many files differ from the version that the target serves; the HTML report lists them."""
    changes = report.changes
    if changes is None:
        return []
    title = f"### What changed against {digest_text(changes.before)}, which {plain(report.target)} serves"
    return [title, f"- files: {plain(changes.summary)}"]


def _transfer(report: Report) -> list[str]:
    """How much staging the version fetched from where, and what held it up."""
    transfer = report.transfer
    if transfer is None:
        return []
    places = (f"- {plain(named(TRAFFIC_HEAD, traffic_cells(place)))}" for place in transfer.traffic)
    facts = [transfer_text(transfer), f"{bottleneck_text(transfer)}."]
    return ["### Transfer", "  \n".join(map(plain, facts)), *_lines(places)]


def _past(report: Report) -> list[str]:
    past = (map(plain, past_cells(event)) for event in report.past)
    lines = _lines(f"- {at}: {what} {version}, {who}{why and f': {why}'}" for at, what, version, who, why in past)
    return [f"### History of {plain(report.target)}", *lines] if lines else []


def _facts(report: Report) -> str:
    lines = [f"Version {code(report.digest)}, policy {code(report.policy)}, environment {code(report.environment)}."]
    until = f", holds until {time_text(report.expires)}" if report.expires else ""
    lines.append(f"Decided {time_text(report.at)}{until}, requested by {plain(report.requester or 'unknown')}.")
    if report.runbook:
        lines.append(f"Runbook: {plain(report.runbook)}")
    # Two spaces at the end of a line break it in Markdown.
    return "  \n".join(lines)
