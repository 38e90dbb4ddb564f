"""The report for terminals as a coloured table, and for logs and pipes as plain lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefect_stagegate.model import DecisionOutcome
from prefect_stagegate.show.legible import one_line
from prefect_stagegate.show.model import Report, legible, without_repeats
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
_DECISIONS = {
    DecisionOutcome.ACCEPTED: "bold green",
    DecisionOutcome.REFUSED: "bold red",
    DecisionOutcome.INCONCLUSIVE: "bold magenta",
    DecisionOutcome.WAITING: "bold cyan",
}


def to_rich(report: Report) -> RenderableType:
    """The decision, the checks, whose turn it is and what to do.

    Print it with `console.print(…, crop=False)`. Then a long command runs past the edge and the terminal wraps it, so
    that it can be copied without a line break.
    """
    report = legible(without_repeats(report))
    # Text, never markup: a file may be called `[red]`.
    headline = Text.assemble((report.headline, _DECISIONS[report.outcome]), ". ", report.reason)
    turn = Text.assemble(("Whose turn: ", "bold"), report.whose_turn)
    turns = (Text(f"  {turn}") for turn in report.turns)
    about = (Text.assemble((f"  {name:<{_widest(report)}}  ", "dim"), value) for name, value in report.about)
    steps = map(_step, report.steps)
    notes = (Padding(Text(one_line(note), "yellow"), (0, 0, 0, 2), expand=False) for note in report.notes)
    blank = Text("")
    what_to_do = Text("What to do:", "bold")
    return Group(headline, *about, *notes, blank, _table(report), blank, turn, *turns, what_to_do, *steps)


def _widest(report: Report) -> int:
    return max(len(name) for name, _ in report.about)


def _step(step: str) -> RenderableType:
    if is_command(step):
        return Text(f"  {one_line(step)}", "cyan", no_wrap=True, overflow="ignore")
    return Padding(Text(one_line(step)), (0, 0, 0, 2), expand=False)


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("check", no_wrap=True)
    # The column is at least as wide as the longest word, so that a verdict wraps between its words.
    words = [word for row in report.rows for word in row.verdict.split()]
    table.add_column("outcome", min_width=max(map(len, ["outcome", *words])), max_width=14)
    table.add_column("owner", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for row in report.rows:
        verdict = Text(row.verdict, _COLOURS[row.standing])
        table.add_row(Text(row.check), verdict, Text(row.owner.role), _found(row, report.steps))
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


def to_text(report: Report) -> str:
    """The same as plain lines, without colours and of any length."""
    return "\n".join(_lines(legible(without_repeats(report)))) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.headline}. {one_line(report.reason)}"
    yield from (f"  {name:<{_widest(report)}}  {value}" for name, value in report.about)
    yield from (f"  {one_line(note)}" for note in report.notes)
    width = max((len(row.check) for row in report.rows), default=0)
    wide = max((len(row.verdict) for row in report.rows), default=0)
    for row in report.rows:
        yield f"  {row.verdict:<{wide}}  {row.check:<{width}}  {one_line(row.summary)}  [{row.owner}]"
        if row.standing is not Standing.FINE:
            for finding in row.findings[:FINDINGS]:
                yield f"      {one_line(finding.subject)}: {one_line(finding.problem)}"
                if finding.fix:
                    yield f"        → {one_line(finding.fix)}"
            if more := _more(row):
                yield f"      {more}"
    yield f"Whose turn: {report.whose_turn}"
    yield from (f"  {turn}" for turn in report.turns)
    yield "What to do:"
    yield from (f"  {one_line(step)}" for step in report.steps)


def _more(row: Row) -> str:
    more = len(row.findings) - FINDINGS
    return f"… and {more} more; --json has all of them" if more > 0 else ""
