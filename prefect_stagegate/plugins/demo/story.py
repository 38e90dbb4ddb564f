"""Print what happens in the demo: a heading for each step, lines below it, and a status line during waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from prefect_stagegate.show import Report, document_of, render, to_rich

INDENT = 3
LABEL = 12
"""Width in characters of a fact's label."""
WIDEST = 110
"""Longer lines are hard to read."""


class Story:
    """Prints to standard output: with colours and a status line on a terminal, plain elsewhere."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        if not self._console.is_terminal or self._console.width > WIDEST:
            self._console.width = WIDEST
        self._begun = time.monotonic()
        self._steps = 0

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._steps += 1
        self.title(f"{self._steps}. {title}")

    def title(self, text: str) -> None:
        """Print a heading."""
        self._console.print()
        self._console.print(Text(text, "bold"))

    def say(self, text: str) -> None:
        """Print a paragraph."""
        self._print(Text(" " * INDENT), text)

    def fact(self, label: str, text: str, style: str = "") -> None:
        """Print a text beside its label."""
        self._print(Text.assemble(" " * INDENT, (f"{label:<{LABEL}}", "dim")), text, style)

    def type(self, command: str) -> None:
        """Print a command to copy, without line breaks."""
        self._console.print(Text(" " * INDENT + command, "cyan"), soft_wrap=True)

    def report(self, report: Report) -> None:
        """Print a gate's decision: a table on a terminal, plain lines elsewhere."""
        self._console.print()
        if self._console.is_terminal:
            self._console.print(Padding(to_rich(document_of(report)), (0, 0, 0, INDENT), expand=False), crop=False)
        else:
            for line in render("text", document_of(report)).splitlines():
                self._console.print(Text(" " * INDENT + line), soft_wrap=True)
        self._console.print()

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show a status line on a terminal during the block, and remove it afterwards."""
        with self._console.status(Text(text, "dim")):
            yield

    @property
    def seconds(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._begun

    def _print(self, begin: Text, text: str, style: str = "") -> None:
        """Print a paragraph after `begin`; its further lines are indented to the end of `begin`."""
        for line in Text(text, style).wrap(self._console, self._console.width - len(begin)):
            line.rstrip()
            self._console.print(begin + line, soft_wrap=True)
            begin = Text(" " * len(begin))
