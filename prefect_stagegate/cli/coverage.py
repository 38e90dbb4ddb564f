"""`stagegate show --coverage`: which validation read which file of a version."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from prefect_stagegate.cli.common import SHOWN_WITHOUT_ALL, print_json, say, say_line
from prefect_stagegate.model import Address
from prefect_stagegate.operations.gating.coverage import coverage_of
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import TableCoverage, basis_text, group_text, table_text
from prefect_stagegate.report.coverage import LINES
from prefect_stagegate.units import count_text, digest_text


def print_coverage(workspace: Workspace, address: Address, *, every: bool, json: bool) -> None:
    """Print each table's validations with the files that they read; without `every`, the first of each.

    Raises:
        UsageError: There is no such version, or no evidence says who read its files.
    """
    lines, of_group = (sys.maxsize, sys.maxsize) if every or json else (LINES, SHOWN_WITHOUT_ALL)
    tables = coverage_of(workspace, address, lines=lines, of_group=of_group)
    if json:
        print_json([asdict(table) for table in tables])
    else:
        _print_tables(tables)


def _print_tables(tables: Sequence[TableCoverage]) -> None:
    for table in tables:
        say_line(table_text(table))
        for group in table.groups:
            say_line(f"  {group_text(group)}")
            say_line(f"    {basis_text(group.reading)}")
            for file in group.listed:
                rows = f"  {count_text(file.rows, 'row')}" if file.rows else ""
                say_line(f"    {digest_text(file.digest)}  {file.path}{rows}")
            _print_more(group.files - len(group.listed), "file")
        _print_more(table.more_groups, "validation")
        for unread in table.unread:
            say_line(f"  {unread.path} not validated: {unread.problem}")
        _print_more(table.more_unread, "file")


def _print_more(more: int, word: str) -> None:
    if more:
        say(f"    … and {count_text(more, f'more {word}')}; --all lists them")
