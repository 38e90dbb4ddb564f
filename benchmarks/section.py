"""The sections of docs/performance.md that benchmarks write, each between its marks."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs/performance.md"


def write_section(name: str, text: str) -> None:
    """Replace what stands between a section's marks, and leave the rest of the page alone."""
    begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
    before, mark, rest = PAGE.read_text().partition(begin)
    if not mark:
        raise SystemExit(f"{PAGE} has no line {begin}")
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
