"""The formats of tables' files, by their names."""

from __future__ import annotations

from pathlib import Path

PARQUET = (".parquet", ".pq")
JSON = (".json", ".jsonl", ".ndjson")
ARROW = (".arrow", ".feather")
GZIP = ".gz"


def form(path: Path) -> str:
    """The format of a table's file, by its name: `parquet`, `json`, `arrow` or `csv`."""
    suffix = Path(path.name.lower().removesuffix(GZIP)).suffix
    known = {"parquet": PARQUET, "json": JSON, "arrow": ARROW}
    return next((name for name, suffixes in known.items() if suffix in suffixes), "csv")


def is_text(path: str) -> bool:
    """Whether a file's types are inferred from its text.

    >>> is_text("a.csv.gz"), is_text("a.ndjson"), is_text("a.parquet"), is_text("a.feather")
    (True, True, False, False)
    """
    return form(Path(path)) not in ("parquet", "arrow")
