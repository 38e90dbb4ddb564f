"""A document as Markdown, for Prefect's artifacts, pull requests and chats.

All text is escaped, so that it shows as it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from prefect_stagegate.show.document import Cell, Document, Outcomes, Pairs, Part, Section, Shares, Table, Text, legible
from prefect_stagegate.show.legible import legible_text, one_line, spans
from prefect_stagegate.show.next_steps import is_command
from prefect_stagegate.show.rows import Row, tally_text
from prefect_stagegate.show.trimming import fitted
from prefect_stagegate.units import count_text

DEFECTS = 3
"""The most checks that a summary lists."""
STEPS = 5
"""The most steps that a summary lists."""
LENGTH = 160
"""The most characters of a sentence in a summary; a command is never cut."""
_VERDICTS = {"accepted": "✅", "refused": "❌", "inconclusive": "❔", "waiting": "⏳"}
_MARKS = {**_VERDICTS, "pass": "✅", "fail": "❌", "warn": "⚠️"}
# An underscore within a word marks nothing in Markdown, and names that keep theirs unescaped can be copied.
_ACTIVE = re.compile(r"([\\`*\[\]<>|&~#!$])|(?<![^\W_])(_)|(_)(?![^\W_])")
_TICKS = re.compile(r"`+")
_ADDRESS = re.compile(r"https?://[^\s<>()\\`\"|]+")


def to_markdown(document: Document) -> str:
    """The title, whose turn it is, what to do, and all sections, in 300 kB at most."""
    return fitted(document, _markdown)


def to_artifact(document: Document, links: Mapping[str, str] | None = None) -> str:
    """The document as a run shows it: a summary on the first screen, and everything else below, in 300 kB at most."""
    return fitted(
        legible(document), lambda fitting: f"{_summary(fitting, links or {})}\n---\n\n{_joined(_sections(fitting))}"
    )


def to_summary(document: Document, links: Mapping[str, str] | None = None) -> str:
    """The title, whose turn it is, and what to do, in at most fifteen lines.

    `links` are addresses of pages with more, by their names.
    """
    return _summary(legible(document), links or {})


def _summary(document: Document, links: Mapping[str, str]) -> str:
    rows = document.checks
    fine = f"{sum(row.is_fine for row in rows)} of {count_text(len(rows), 'check')}"
    # The first fixes and the last two steps, which are to stage the mended data and to ask the gate again.
    is_cut = len(document.steps) > STEPS
    listed = (*document.steps[: STEPS - 2], *document.steps[-2:]) if is_cut else document.steps
    some = f" ({len(listed)} of {len(document.steps)} steps)" if is_cut else ""
    defects = [row for row in rows if not row.is_fine][:DEFECTS]
    addresses = [link(name, legible_text(address)) for name, address in links.items() if address]
    return _joined(
        [
            _title(document),
            "\n".join([f"{plain(_short(document.lead))} {fine} fine.", "", *map(_defect, defects)]),
            *(plain(_short(note)) for note in document.notes[:1]),
            f"**Whose turn:** {plain(_short(document.turn))}",
            f"**What to do{some}:**\n\n{_numbered(step if is_command(step) else _short(step) for step in listed)}",
            "  \n".join((_facts_line(document), " · ".join((document.when, *addresses)))),
        ]
    )


def _markdown(document: Document) -> str:
    verdict = f"**{document.tone.capitalize()}.** " if document.tone in _VERDICTS else ""
    turns = (f"- {plain(str(turn))}" + "".join(f"\n  - {step(fix)}" for fix in turn.fixes) for turn in document.turns)
    return _joined(
        [
            _title(document),
            verdict + step(document.lead),
            _facts_line(document),
            "\n".join(f"- {step(note)}" for note in document.notes),
            document.turn and f"**Whose turn:** {plain(document.turn)}",
            "\n".join(turns),
            "**What to do:**" if document.steps else "",
            _numbered(document.steps),
            *_sections(document),
        ]
    )


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(filter(None, parts)) + "\n"


def _title(document: Document) -> str:
    mark = _MARKS.get(document.tone)
    return f"## {f'{mark} ' if mark else ''}{plain(document.title)}"


def _facts_line(document: Document) -> str:
    return " · ".join(f"{plain(name)} {_value(value)}" for name, value in document.facts)


def _numbered(steps: Iterable[str]) -> str:
    return "\n".join(f"{number}. {step(text)}" for number, text in enumerate(steps, start=1))


def _sections(document: Document) -> list[str]:
    return [text for section in document.sections if section.parts for text in _section(section)]


def _section(section: Section) -> list[str]:
    """The heading, and each part; of tables first what is not fine, then the rest, folded."""
    texts, fine = [section.title and f"### {plain(section.title)}"], []
    for part in section.parts:
        if isinstance(part, Table):
            first = len(part.rows) - part.fine
            texts.append(_table(part, first))
            fine += [_row(part, row, _bare) for row in part.rows[first:] if not part.summary]
        else:
            texts += _part(part)
    return [*texts, *folded(f"{len(fine)} fine", fine)]


def _part(part: Part) -> list[str]:
    match part:
        case Text():
            return [step(part.text)]
        case Pairs():
            return ["\n".join(f"- {plain(name)}: {_value(value)}" for name, value in part.facts)]
        case Shares():
            return [f"{plain(part.label)}."]
        case Outcomes(is_brief=True):
            defects = [row for row in part.rows if not row.is_fine]
            return ["\n".join(f"- {code(row.check)}: {row.verdict}, {plain(row.summary)}" for row in defects)]
        case Outcomes():
            return _checks(part.rows)
        case _:
            return []


def _checks(rows: Sequence[Row]) -> list[str]:
    """A heading for each check that is not fine, with a list of its findings; and all checks, folded."""
    parts = []
    for row in rows:
        if row.is_fine:
            continue
        found = [
            f"- {code(item.subject)}: {plain(item.problem)}{f' → {step(item.fix)}' if item.fix else ''}"
            for item in row.findings
        ]
        more = [f"- {row.findings_left_out:,} more; `--json` has all of them"] if row.findings_left_out else []
        about = f"{row.verdict}, {plain(str(row.owner))}: {plain(row.summary)}"
        parts += [f"#### {row.check}", about, "\n".join([*found, *more])]
    listed = [f"{row.check}: {row.verdict}, {row.owner}: {row.summary}" for row in rows]
    head = ["### What was found", *parts] if parts else []
    return [*head, "### All checks", *folded(tally_text(rows), listed)]


def _table(table: Table, first: int) -> str:
    if table.summary:
        return f"- {code(table.title)}: {plain(table.summary)}"
    lines = [f"- {_row(table, row, _marked)}" for row in table.rows[:first]]
    return "\n".join([*lines, *([f"- {table.more:,} more"] if table.more else [])])


def _row(table: Table, row: Sequence[Cell], shown: Callable[[Cell], str]) -> str:
    title = f"{shown(Cell(table.title))}: " if table.title else ""
    cells = [f"{name.lower()} {shown(cell)}" for name, cell in zip(table.head[1:], row[1:], strict=True) if cell.text]
    return f"{title}{shown(row[0])}: {', '.join(cells)}"


def _marked(cell: Cell) -> str:
    text = code(cell.text) if cell.is_code else plain(cell.text)
    return f"{text} ({plain(cell.below)})" if cell.below else text


def _bare(cell: Cell) -> str:
    return f"{cell.text} ({cell.below})" if cell.below else cell.text


def _defect(row: Row) -> str:
    """One check's summary; for a check of the data also the first file that it is about."""
    text = f"- **{plain(row.check)}**: {plain(_short(row.summary))}"
    if row.owner.role != "data" or not row.findings:
        return text
    others = len(row.findings) + row.findings_left_out - 1
    more = f" and {others} more" if others else ""
    return f"{text} ({code(_short(row.findings[0].subject))}{more})"


def _value(value: str) -> str:
    return code(value) if "sha256:" in value else plain(value)


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 1].rstrip()}…"


def plain(text: str) -> str:
    """Escape a text to one line without markup."""
    return _escaped(one_line(text))


def code(text: str) -> str:
    """Put a text into a code span."""
    text = one_line(text)
    if not text:
        return ""
    # The fence is longer than any run of backticks inside.
    fence = "`" * (max(map(len, _TICKS.findall(text)), default=0) + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def step(text: str) -> str:
    """Format a fix or a step: a command as code, a sentence with its backticks."""
    if is_command(text):
        return code(text)
    return "".join(code(part) if ticked else _escaped(part) for part, ticked in spans(one_line(text)))


def link(words: str, address: str) -> str:
    """A link when a browser may follow the address, else the words and the address as text."""
    return f"[{plain(words)}]({address})" if _ADDRESS.fullmatch(address) else f"{plain(words)}: {plain(address)}"


def folded(title: str, texts: Sequence[str]) -> list[str]:
    """A list of texts that opens at a click, if there are any. As HTML: Prefect's pages fold no Markdown."""
    items = "".join(f"<li>{html.escape(one_line(text))}</li>" for text in texts)
    return [f"<details><summary>{html.escape(title)}</summary><ul>{items}</ul></details>"] if texts else []


def _escaped(text: str) -> str:
    return _ACTIVE.sub(lambda match: "\\" + match[0], text)
