"""The report as Markdown, for Prefect's artifacts, pull requests and chats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from prefect_stagegate.report.legible import one_line, spans, time_text
from prefect_stagegate.report.model import Report, Row, is_command, legible

FINDINGS = 200
"""The most defects that are listed: artifacts have a size beyond which they are refused."""

_ACTIVE = re.compile(r"([\\`*\[\]<>|&~#!$])|(?<![^\W_])(_)|(_)(?![^\W_])")
_TICKS = re.compile(r"`+")


def to_markdown(report: Report) -> str:
    """A heading, whose turn it is, what to do, the defects one by one, and all checks."""
    report = legible(report)
    parts = [
        f"## {_text(report.headline)}",
        f"**{report.outcome.value.capitalize()}.** {_text(report.reason)}",
        f"**Whose turn:** {_text(report.whose_turn)}",
        "**What to do:**",
        "\n".join(f"{number}. {_fix(step)}" for number, step in enumerate(report.steps, start=1)),
        *_defects(report),
        "### All checks",
        _table(("Check", "Outcome", "Owner", "Found"), map(_check, report.rows)),
        _facts(report),
    ]
    return "\n\n".join(parts) + "\n"


def _defects(report: Report) -> list[str]:
    lines = [(row, finding) for row in report.defects for finding in row.found]
    if not lines:
        return []
    cells = (
        (_code(row.check), _code(finding.subject), _text(finding.problem), _text(str(row.owner)), _fix(finding.fix))
        for row, finding in lines[:FINDINGS]
    )
    table = _table(("Check", "Where", "What is wrong", "Owner", "What to do"), cells)
    more = [f"{len(lines) - FINDINGS} more are in the other reports."] if len(lines) > FINDINGS else []
    return ["### What was found", table, *more]


def _check(row: Row) -> tuple[str, ...]:
    return _code(row.check), row.verdict, _text(str(row.owner)), _text(row.summary)


def _facts(report: Report) -> str:
    lines = [f"Version {_code(report.digest)}, policy {_code(report.policy)}, environment {_code(report.environment)}."]
    until = f", holds until {time_text(report.expires)}" if report.expires else ""
    lines.append(f"Decided {time_text(report.at)}{until}, asked for by {_text(report.requester or 'nobody named')}.")
    if report.runbook:
        lines.append(f"Runbook: {_text(report.runbook)}")
    return "  \n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Text that shows as it is, in one line, whatever it holds."""
    return _text_part(one_line(text))


def _text_part(text: str) -> str:
    return _ACTIVE.sub(lambda found: "\\" + found[0], text)


def _code(text: str) -> str:
    """Text in a code span that no backtick in it can end; a table needs its pipes escaped even there."""
    text = one_line(text)
    if not text:
        return ""
    fence = "`" * (max(map(len, _TICKS.findall(text)), default=0) + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")


def _fix(text: str) -> str:
    if is_command(text):
        return _code(text)
    return "".join(_code(part) if code else _text_part(part) for part, code in spans(one_line(text)))
