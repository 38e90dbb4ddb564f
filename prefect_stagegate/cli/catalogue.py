"""The catalogue of checks as Markdown; `make docs` writes it between the marks of docs/readiness.md.

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
    """A table for each group of checks, and below it the rule and parameters of each check."""
    shipped = [
        check for check in CHECKS.values() if check.ask.__module__.startswith("prefect_stagegate.") and not check.broken
    ]
    return "\n\n".join(part for title, checks in groups(shipped).items() for part in _group(title, checks))


def _group(title: str, checks: list[CheckDefinition]) -> Iterator[str]:
    yield f"### {title}"
    yield "\n".join([HEAD, *map(_row, checks)])
    if explanations := [text for check in checks if (text := _explained(check))]:
        yield "\n".join(explanations)


def _row(check: CheckDefinition) -> str:
    cells = (
        f"`{check.name}`",
        check.owner,
        check.severity,
        check.scope,
        holds(check),
        ", ".join(check.binds),
        check.renewal,
        asks(check),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _explained(check: CheckDefinition) -> str:
    settings = "; ".join(f"`{item.name}` ({item.default})" for item in parameters(check))
    explanation = " ".join(part for part in (rule(check), f"Parameters: {settings}." if settings else "") if part)
    return f"- `{check.name}`: {explanation}" if explanation else ""


def inserted(page: str) -> str:
    """The page with the current catalogue between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{catalogue()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(inserted(file.read_text()))
