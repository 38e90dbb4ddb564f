"""A document for terminals as a coloured table, and for logs and pipes as plain lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefect_stagegate.show.document import Document, legible
from prefect_stagegate.show.legible import one_line
from prefect_stagegate.show.next_steps import is_command
from prefect_stagegate.show.rows import Row, Standing

FINDINGS = 20
"""The most findings of one check that a terminal shows."""
_COLOURS = {
    Standing.REFUSES: "bold red",
    Standing.UNDECIDED: "bold magenta",
    Standing.WAITS: "bold cyan",
    Standing.NOTED: "yellow",
    Standing.FINE: "green",
}
_TONES = {"accepted": "bold green", "refused": "bold red", "inconclusive": "bold magenta", "waiting": "bold cyan"}


def to_rich(document: Document) -> RenderableType:
    """The title, the checks, whose turn it is and what to do.

    Print it with `console.print(…, crop=False)`. Then a long command runs past the edge and the terminal wraps it, so
    that it can be copied without a line break.
    """
    document = legible(document)
    # Text, never markup: a file may be called `[red]`.
    headline = Text.assemble((document.title, _TONES.get(document.tone, "bold")), ". ", document.lead)
    turn = Text.assemble(("Whose turn: ", "bold"), document.turn)
    turns = (Text(f"  {turn}") for turn in document.turns)
    facts = (Text.assemble((f"  {name:<{_widest(document)}}  ", "dim"), value) for name, value in document.facts)
    steps = map(_step, document.steps)
    notes = (Padding(Text(one_line(note), "yellow"), (0, 0, 0, 2), expand=False) for note in document.notes)
    blank = Text("")
    what_to_do = Text("What to do:", "bold")
    return Group(headline, *facts, *notes, blank, _table(document), blank, turn, *turns, what_to_do, *steps)


def _widest(document: Document) -> int:
    return max((len(name) for name, _ in document.facts), default=0)


def _step(step: str) -> RenderableType:
    if is_command(step):
        return Text(f"  {one_line(step)}", "cyan", no_wrap=True, overflow="ignore")
    return Padding(Text(one_line(step)), (0, 0, 0, 2), expand=False)


def _table(document: Document) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("check", no_wrap=True)
    # The column is at least as wide as the longest word, so that a verdict wraps between its words.
    words = [word for row in document.checks for word in row.verdict.split()]
    table.add_column("outcome", min_width=max(map(len, ["outcome", *words])), max_width=14)
    table.add_column("owner", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for row in document.checks:
        verdict = Text(row.verdict, _COLOURS[row.standing])
        table.add_row(Text(row.check), verdict, Text(row.owner.role), _found(row, document.steps))
    return table


def _found(row: Row, steps: Sequence[str]) -> RenderableType:
    """A check's summary and findings. A fix stands once, below its last finding, unless it is a step."""
    lines: list[RenderableType] = [Text(one_line(row.summary))]
    if row.standing is Standing.FINE:
        return lines[0]
    shown = row.findings[:FINDINGS]
    for finding, following in zip_longest(shown, shown[1:]):
        lines.append(Text.assemble((one_line(finding.subject), "bold"), ": ", one_line(finding.problem)))
        # Findings with the same fix stand together: print the fix after the last of them.
        again = following is not None and following.fix == finding.fix
        if finding.fix and not again and finding.fix not in steps:
            lines.append(Padding(Text(f"→ {one_line(finding.fix)}", "cyan"), (0, 0, 0, 2), expand=False))
    if more := _more(row):
        lines.append(Text(more))
    return Group(*lines)


def to_text(document: Document) -> str:
    """The same as plain lines, without colours and of any length. Call it by `render`."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"{document.title}. {one_line(document.lead)}"
    yield from (f"  {name:<{_widest(document)}}  {value}" for name, value in document.facts)
    yield from (f"  {one_line(note)}" for note in document.notes)
    width = max((len(row.check) for row in document.checks), default=0)
    wide = max((len(row.verdict) for row in document.checks), default=0)
    for row in document.checks:
        yield f"  {row.verdict:<{wide}}  {row.check:<{width}}  {one_line(row.summary)}  [{row.owner}]"
        if row.standing is not Standing.FINE:
            for finding in row.findings[:FINDINGS]:
                yield f"      {one_line(finding.subject)}: {one_line(finding.problem)}"
                if finding.fix:
                    yield f"        → {one_line(finding.fix)}"
            if more := _more(row):
                yield f"      {more}"
    yield f"Whose turn: {document.turn}"
    yield from (f"  {turn}" for turn in document.turns)
    yield "What to do:"
    yield from (f"  {one_line(step)}" for step in document.steps)


def _more(row: Row) -> str:
    more = len(row.findings) - FINDINGS
    return f"… and {more} more; --json has all of them" if more > 0 else ""
