"""How the columns of a table differ between two versions. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from prefect_stagegate.model import Finding, Outcome

ALIKE = 0.7
"""How similar two names must be, 0 to 1, to suggest that a column was renamed."""

Columns = Mapping[str, str]
"""The columns of a table, each with its type."""


def compare_columns(table: str, before: Columns, now: Columns, reference: str) -> Iterator[Finding]:
    """Report changed columns: a missing or retyped one fails, an added one warns. A table that is new has no changes.

    Args:
        table: The table's name.
        before: Its columns in the reference version.
        now: Its columns in the version that is checked.
        reference: What the texts call the reference version.
    """
    subject = f"table {table}"
    added = [name for name in now if name not in before] if before else []
    for name, kind in before.items():
        if name not in now:
            near = difflib.get_close_matches(name, added, n=1, cutoff=ALIKE)
            renamed = f"; {near[0]} is new: renamed?" if near else ""
            problem = f"column {name} ({kind}) is missing; {reference} has it{renamed}"
            yield Finding(subject, problem, f"Restore {name} at its source. {_DECLARE}")
        elif now[name] != kind:
            problem = f"column {name} is {now[name]}; in {reference} it is {kind}"
            yield Finding(subject, problem, f"Write {name} as {kind} at its source. {_DECLARE}")
    for name in added:
        problem = f"column {name} ({now[name]}) is new: {reference} lacks it"
        yield Finding(subject, problem, "No action is needed if the change is intended.", Outcome.WARN)


_DECLARE = "If the change is intended, declare the table's `columns:` in the contract."
