"""How often each value of a column occurs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect_stagegate.measures import Balance
from prefect_stagegate.quoting import identifier
from prefect_stagegate.validations.queries.duck import Queries

SHOWN = 60
"""Characters of a class's name that are shown."""


def balance(queries: Queries, view: Path, paths: Sequence[str], column: str) -> Balance:
    """Count the values of a column in one pass; only the rarest value leaves the database.

    Args:
        queries: An open database.
        view: The version's folder.
        paths: The table's files.
        column: The column with the labels.
    """
    if not paths:
        return Balance(0, 0, 0)
    rows = queries.relation(view, paths)
    counted = f"SELECT {identifier(column)} AS label, count(*) AS n FROM ({rows}) GROUP BY 1"  # noqa: S608
    ((labelled, unlabelled, classes, rarest),) = queries.rows(
        "SELECT coalesce(sum(n) FILTER (label IS NOT NULL), 0), coalesce(sum(n) FILTER (label IS NULL), 0), "  # noqa: S608
        "count(label), min(struct_pack(n := n, label := CAST(label AS VARCHAR))) FILTER (label IS NOT NULL) "
        f"FROM ({counted})"
    )

    if rarest is None:
        return Balance(0, int(unlabelled), 0)
    return Balance(int(labelled), int(unlabelled), int(classes), rarest["label"][:SHOWN], int(rarest["n"]))
