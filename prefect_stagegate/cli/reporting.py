"""Print a decision's report and write it to files; `check` and `report` share it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from prefect_stagegate.cli.ages import report_with_ages
from prefect_stagegate.cli.printing import OUTPUT, say, write_output
from prefect_stagegate.clock import now
from prefect_stagegate.show import Report, json_values, to_html, to_junit, to_markdown, to_rich, to_text

Html = Annotated[Path | None, Parameter(metavar="FILE", help="Also write the report as one HTML page.")]
Markdown = Annotated[Path | None, Parameter(metavar="FILE", help="Also write the report as Markdown.")]
Junit = Annotated[Path | None, Parameter(metavar="FILE", help="Also write the report as JUnit XML, for CI.")]


def print_report(report: Report, *, json: bool) -> None:
    """Print a report: with colours to a terminal, as plain lines to a program."""
    if json:
        OUTPUT.begin()
        say(OUTPUT.text(json_values(report)))
        return
    report = report_with_ages(report, now())
    if sys.stdout.isatty():
        Console().print(to_rich(report), crop=False)
    else:
        say(to_text(report).rstrip())


def write_reports(report: Report, *, html: Path | None, markdown: Path | None, junit: Path | None) -> list[Path]:
    """Write a report to each file that is given; return the files.

    Raises:
        UsageError: A file can't be written.
    """
    outputs = [(html, to_html), (markdown, to_markdown), (junit, to_junit)]
    written = []
    for path, writer in outputs:
        if path is None:
            continue
        write_output(writer(report), path, "The report")
        written.append(path)
    return written
