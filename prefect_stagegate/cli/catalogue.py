"""The catalogue of checks as Markdown, between the marks of docs/readiness.md: `make docs` writes it there.

python -m prefect_stagegate.cli.catalogue docs/readiness.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from prefect_stagegate.readiness import CHECKS, CheckDefinition
from prefect_stagegate.readiness.catalogue import asks, groups, holds, parameters, rule

BEGIN, END = "<!-- catalogue: begin -->", "<!-- catalogue: end -->"
COLUMNS = ("check", "owner", "severity", "scope", "holds", "ends with another", "at a run's start", "asks")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def catalogue() -> str:
    """A table for each group, and below it what each of its checks lets pass."""
    own = [one for one in CHECKS.values() if one.ask.__module__.startswith("prefect_stagegate.") and not one.broken]
    return "\n\n".join(part for title, checks in groups(own).items() for part in _group(title, checks))


def _group(title: str, checks: list[CheckDefinition]) -> Iterator[str]:
    yield f"### {title}"
    yield "\n".join([HEAD, *map(_row, checks)])
    if told := [text for one in checks if (text := _explained(one))]:
        yield "\n".join(told)


def _row(one: CheckDefinition) -> str:
    cells = (
        f"`{one.name}`",
        one.owner,
        one.severity,
        one.scope,
        holds(one),
        ", ".join(one.binds),
        one.renewal,
        asks(one),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _explained(one: CheckDefinition) -> str:
    settings = "; ".join(f"`{item.name}` ({item.default})" for item in parameters(one))
    told = " ".join(part for part in (rule(one), f"Parameters: {settings}." if settings else "") if part)
    return f"- `{one.name}`: {told}" if told else ""


def inserted(page: str) -> str:
    """The page with the catalogue between its marks as it is now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{catalogue()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(inserted(file.read_text()))
