"""How often each value of a column occurs."""

from __future__ import annotations

from prefect_stagegate.model.measures import Balance
from prefect_stagegate.plugins.profile.profiles import ColumnProfile
from prefect_stagegate.quoting import identifier
from prefect_stagegate.validations.queries.duck import INTEGERS, Queries
from prefect_stagegate.validations.queries.relations import TableFiles

SHOWN = 60
"""Characters of a class's name that are shown."""


def balance(queries: Queries, table: TableFiles, column: str) -> Balance:
    """Count the values of a column in one pass; only the rarest value leaves the database.

    Args:
        queries: An open database.
        table: The table's files.
        column: The column with the labels.
    """
    if not table.files:
        return Balance(0, 0, 0)
    rows = queries.relation(table)
    counted = f"SELECT {identifier(column)} AS label, count(*) AS n FROM ({rows}) GROUP BY 1"  # noqa: S608
    ((labelled, unlabelled, classes, rarest),) = queries.rows(
        "SELECT coalesce(sum(n) FILTER (label IS NOT NULL), 0), coalesce(sum(n) FILTER (label IS NULL), 0), "  # noqa: S608
        "count(label), min(struct_pack(n := n, label := CAST(label AS VARCHAR))) FILTER (label IS NOT NULL) "
        f"FROM ({counted})"
    )

    if rarest is None:
        return Balance(0, int(unlabelled), 0)
    return Balance(int(labelled), int(unlabelled), int(classes), rarest["label"][:SHOWN], int(rarest["n"]))


def balance_of(column: ColumnProfile) -> Balance | None:
    """The balance of a column by its profile; None where that does not know every value as DuckDB writes it."""
    counts = column.value_counts()
    if column.counts is None or len(counts) != len(column.counts):
        return None
    if column.kind == "number" and column.type not in INTEGERS:
        return None
    if not counts:
        return Balance(0, column.nulls, 0)
    rows, label = min((count, label) for label, count in counts.items())
    return Balance(sum(counts.values()), column.nulls, len(counts), label[:SHOWN], rows)
