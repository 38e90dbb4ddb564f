"""The SQL statements of a request: columns, order and partitions."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from prefect_stagegate.errors import SourceError, did_you_mean
from prefect_stagegate.plugins.sql.columns import Columns
from prefect_stagegate.plugins.sql.request import MOST_PARTITIONS, SqlRequest
from prefect_stagegate.plugins.sql.session import Session
from prefect_stagegate.quoting import identifier, literal

NULL = "__HIVE_DEFAULT_PARTITION__"
"""Hive's name for the partition of rows whose value is null."""


@dataclass(frozen=True, slots=True)
class Partition:
    """The rows of one object."""

    key: str
    condition: str = "true"


class Relation:
    """A table or query in one session.

    Raises:
        SourceError: There is no such table or column, or a column can't be written as Parquet.
    """

    def __init__(self, session: Session, request: SqlRequest) -> None:
        self._session, self._request = session, request
        self._oid = 0
        self._from = f"(\n{request.query}\n) as query" if request.query else self._find_table()
        self.columns = Columns(session.schema(f"select * from {self._from}"), request.numeric, url=request.url)
        for name in (request.partition_by, *(request.order_by or ())):
            if name and name not in self.columns.names:
                hint = did_you_mean(name, self.columns.names)
                raise SourceError(f"There is no column {name!r}: {hint}", source=request.url)
        self._order = self._order_by()
        self._refuse_matrices()

    def statement(self, partition: Partition) -> str:
        """The query of one partition."""
        return f"select * from {self._from} where {partition.condition}{self._order}"

    def partitions(self) -> list[Partition]:
        """The partitions. Every row is in exactly one."""
        request = self._request
        if not request.partition_by:
            return [Partition(f"{_word(request.name)}.parquet")]
        return self._ranges() if request.partitions else self._values()

    def _find_table(self) -> str:
        schema, table = self._request.table
        name = f"{identifier(schema)}.{identifier(table)}" if schema else identifier(table)
        # PostgreSQL itself resolves the name, by the search path of this user.
        oid = self._session.rows(f"select to_regclass({literal(name)})::oid::int8")[0][0]
        if oid is None:
            raise SourceError(
                f"There is no table {self._request.name!r}: {self._suggestion()}", source=self._request.url
            )
        self._oid = int(oid)
        return name

    def _suggestion(self) -> str:
        """Suggest the most similar table that this user may read; without its schema where that is searched."""
        tables = self._session.rows(
            "select case when pg_table_is_visible(c.oid) then relname else nspname || '.' || relname end "
            "from pg_class c join pg_namespace n on n.oid = relnamespace where relkind in ('r', 'p', 'v', 'm', 'f') "
            "and nspname not in ('pg_catalog', 'information_schema', 'pg_toast') "
            "and has_table_privilege(c.oid, 'select')"
        )
        return did_you_mean(self._request.name, [str(name) for (name,) in tables])

    def _order_by(self) -> str:
        """Order by the option, else by the primary key, else by all columns: rows equal in all are the same."""
        order = self._request.order_by
        if order is None:
            order = self._primary_key() or tuple(self.columns.names)
            if unsortable := set(order).intersection(self.columns.unsortable):
                raise SourceError(
                    f"There is no primary key, and rows can't be ordered by {', '.join(sorted(unsortable))}",
                    hint="Name the columns whose order is total by the option `order_by:`.",
                    source=self._request.url,
                )
        return f" order by {', '.join(map(identifier, order))}" if order else ""

    def _refuse_matrices(self) -> None:
        """Refuse arrays of several dimensions. PostgreSQL does not enforce declared dimensions, so look at the rows."""
        for name in self.columns.arrays:
            rows = self._session.rows(
                f"select exists (select from {self._from} where array_ndims({identifier(name)}) > 1)"
            )
            if rows[0][0]:
                raise SourceError(
                    f"Column {name!r} holds arrays of several dimensions, whose shape would be lost",
                    hint=f"Cast it in `query:`, as by to_jsonb({name}).",
                    source=self._request.url,
                )

    def _primary_key(self) -> tuple[str, ...]:
        if not self._oid:
            return ()
        names = self._session.rows(
            "select attname::text from pg_index, unnest(indkey) with ordinality as k(number, place) "
            f"join pg_attribute on attrelid = {self._oid} and attnum = k.number "
            f"where indrelid = {self._oid} and indisprimary order by place"
        )
        return tuple(str(name) for (name,) in names)

    def _values(self) -> list[Partition]:
        by = self._request.partition_by
        column = identifier(by)
        # One more than permitted tells that there are too many.
        rows = self._session.rows(
            f"select distinct {column}::text as value from {self._from} order by value limit {MOST_PARTITIONS + 1}"
        )
        if len(rows) > MOST_PARTITIONS:
            raise SourceError(
                f"The column {by!r} has more than {MOST_PARTITIONS} values",
                hint="Divide its range by the option `partitions: 16`.",
                source=self._request.url,
            )
        return [
            Partition(
                f"{_word(by)}={NULL if value is None else _word(str(value))}.parquet",
                f"{column} is null" if value is None else f"{column} = {literal(str(value))}",
            )
            for (value,) in rows
        ]

    def _ranges(self) -> list[Partition]:
        """Ranges of equal width between the least and the greatest value. Rows whose value is null are in the first."""
        by, count = self._request.partition_by, self._request.partitions
        column = identifier(by)
        rows = self._session.rows(
            f"select (low + (high - low) * step / {count})::text from generate_series(1, {count - 1}) as step, "
            f"(select min({column}) as low, max({column}) as high from {self._from}) as range order by step"
        )
        # A table without rows has no bounds: one range takes all.
        bounds = [literal(str(bound)) for (bound,) in rows if bound is not None]
        # Each range includes its lower bound, and excludes its upper one, so that none overlap.
        parts = []
        for number in range(len(bounds) + 1):
            least = f"{column} >= {bounds[number - 1]}" if number else ""
            below = f"{column} < {bounds[number]}" if number < len(bounds) else ""
            condition = " and ".join(filter(None, (least, below))) or "true"
            condition = condition if number else f"({condition} or {column} is null)"
            parts.append(Partition(f"{_word(by)}-{number + 1:05}-of-{len(bounds) + 1:05}.parquet", condition))
        return parts


def _word(name: str) -> str:
    """A name encoded as a part of a file name."""
    return quote(name, safe=" ")
