"""Print what each expectation of a table found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from rich.table import Table
from rich.text import Text

from prefect_stagegate.cli.printing import escaped, print_table, say
from prefect_stagegate.model import ExpectationResult
from prefect_stagegate.show import by_table, cells

SHOWN = 20
"""The most expectations of one table that are printed; the failed ones come first."""
HEAD = ("verdict", "expectation", "observed", "refused rows", "examples", "time")
_COLOURS = {"failed": "red", "errored": "magenta", "passed": "green"}


def print_expectations(results: Sequence[ExpectationResult]) -> None:
    """Print a table with a row for each expectation; nothing without any."""
    if not results:
        return
    table = Table(*HEAD, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    ordered = list(chain.from_iterable(by_table(results).values()))
    for result in ordered[:SHOWN]:
        table.add_row(*_row(result))
    print_table(table)
    if len(ordered) > SHOWN:
        say(f"… and {len(ordered) - SHOWN:,} more; --json has all")


def _row(result: ExpectationResult) -> list[Text]:
    """The cells as text, never markup: a value may be `[red]`."""
    expectation, column, severity, verdict, observed, refused, examples, time = map(escaped, cells(result))
    verdict = verdict if severity == "critical" else f"{verdict} ({severity})"
    title = f"{column}: {expectation}" if column else expectation
    first = Text(verdict, _COLOURS.get(result.verdict, ""))
    return [first, *map(Text, (title, observed, refused, examples, time))]
