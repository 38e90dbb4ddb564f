"""The overview that `stagegate --help` prints: on one screen of 40 lines, with the main commands of each group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from prefect_stagegate.doors import Command

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

NAME_WIDTH = 10
"""Columns of a command's name, in all groups."""


class CommandOverview:
    """Prints a group as its main commands with their lines, and the names of the others beside its title."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self._main = {command.words for command in commands if command.is_main}

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:  # noqa: ARG002 - cyclopts
        """Print one group."""
        entries = [(" ".join(entry.names), entry.description) for entry in panel.entries]
        rows = Table.grid(padding=(0, 1))
        rows.add_column(min_width=NAME_WIDTH)
        for name, line in entries:
            if name in self._main:
                rows.add_row(f"  {name}", line)
        title = Text(str(panel.title), style="bold")
        if others := ", ".join(name for name, _ in entries if name not in self._main):
            title.append(f" (also: {others})" if rows.row_count else f": {others}", style="not bold")
        console.print(title)
        if rows.row_count:
            console.print(rows)
