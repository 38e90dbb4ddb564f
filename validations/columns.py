"""The columns of a table with their types, for comparing versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect_stagegate.validations.drift import NUMBERS
from prefect_stagegate.validations.duck import Queries
from prefect_stagegate.validations.sql import PARQUET, relation


def columns(queries: Queries, view: Path, paths: Sequence[str]) -> dict[str, str]:
    """The columns of all files of a table, each with DuckDB's name of its type.

    Numbers in text files have no width, so their type is `number`, with fractions or without.

    Args:
        queries: An open database.
        view: The version's folder.
        paths: The table's files.
    """
    if not paths:
        return {}
    text = any(not path.lower().endswith(PARQUET) for path in paths)
    kinds = queries.columns(relation([view / path for path in paths]))
    return {name: "number" if text and kind.partition("(")[0] in NUMBERS else kind for name, kind in kinds.items()}
