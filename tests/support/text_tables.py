"""Tables for queries, without a contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect_stagegate.spec.csv_dialect import TextReading
from prefect_stagegate.validations.queries.relations import TableFiles


def table_of(view: Path, files: Sequence[str]) -> TableFiles:
    """A table of some files, whose text is written as most is."""
    return TableFiles(view, files, TextReading())
