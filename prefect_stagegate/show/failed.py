"""The objects that could not be staged, with the reasons: for terminals, logs and a run's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prefect_stagegate.model import FailedObject
from prefect_stagegate.show.marks import code, plain
from prefect_stagegate.units import count_text

LISTED = 20
"""The most objects that a terminal or a log lists."""
ROWS = 200
"""The most objects that a page lists."""


def failed_lines(failed: Sequence[FailedObject]) -> Iterator[str]:
    """A line for each of the first `LISTED` objects, and one that counts the rest."""
    for item in failed[:LISTED]:
        yield f"  {item.path}: {item.reason}"
    if len(failed) > LISTED:
        yield f"  and {len(failed) - LISTED} more"


def failed_page(dataset: str, failed: Sequence[FailedObject], *, digest: str = "") -> str:
    """The page of a run whose objects failed; the digest is that of the version made without them, if any."""
    count = count_text(len(failed), "object")
    made = f"Version {code(digest)} was made without them." if digest else "No version was made, and no ref moved."
    rows = [
        # A table ends a cell at a pipe, also within code.
        "| {} | {} | {} | {} |".format(code(f.path).replace("|", "\\|"), *map(plain, (f.source, f.error, f.reason)))
        for f in failed
    ]
    more = [f"\nand {len(rows) - ROWS} more."] if len(rows) > ROWS else []
    head = ["| object | source | error | reason |", "|---|---|---|---|"]
    title = f"## ❌ {count} of {plain(dataset)} could not be staged"
    return "\n".join([title, "", made, "", *head, *rows[:ROWS], *more, ""])
