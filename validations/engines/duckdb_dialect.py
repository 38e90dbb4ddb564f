"""DuckDB for SQLAlchemy, as far as Great Expectations asks for it: single SELECTs, and the columns of a view.

SQLAlchemy's PostgreSQL dialect writes SQL that DuckDB understands. Great Expectations runs a query, gives its
connection back to the pool, and only then fetches the rows. The pool rolls the connection back, and DuckDB drops the
rows of a query whose transaction ends (great_expectations issues 10738 and 11579). The data is only read here, so this
dialect opens no transaction that could end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import duckdb
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.base import PGDialect, PGIdentifierPreparer

from prefect_stagegate.validations.queries.duck import lock
from prefect_stagegate.validations.worker.statements import select_problem

SCHEME = "stagegate_duckdb"
"""The scheme of SQLAlchemy URLs that use this dialect."""
FOLDERS = "stagegate_folders"
"""The key in the URL's query that holds, as JSON, the folders below which files may be read."""
_COLUMNS = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = $1 ORDER BY column_index"
_TYPES: dict[str, type[sa.types.TypeEngine[Any]]] = {
    kind.__name__: kind
    for kind in (sa.BOOLEAN, sa.SMALLINT, sa.INTEGER, sa.BIGINT, sa.DOUBLE, sa.DATE, sa.TIME, sa.TIMESTAMP, sa.UUID)
} | {"FLOAT": sa.REAL, "VARCHAR": sa.String, "BLOB": sa.LargeBinary, "TIMESTAMP_NS": sa.TIMESTAMP}
"""SQLAlchemy's types by DuckDB's names; others get a class of their own name."""


def connect(database: str, config: Mapping[str, str], folders: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """Connect, and lock the configuration to `folders` unless an earlier connection to the same database did."""
    connection = duckdb.connect(database, config=dict(config))
    if connection.execute("SELECT current_setting('lock_configuration')").fetchone() != (True,):
        lock(connection, folders)
    return connection


class Refused(Exception):
    """A statement that no suite may make; its text says why."""


class _QuotingPreparer(PGIdentifierPreparer):
    def _requires_quotes(self, value: str) -> bool:  # noqa: ARG002 - DuckDB's reserved words are not PostgreSQL's
        return True


class ReadOnlyDialect(PGDialect):
    """DuckDB without transactions and with a locked configuration, which runs single SELECTs only."""

    # Great Expectations decides by the name, and would send more than SELECTs to a PostgreSQL.
    name = "duckdb"
    driver = "duckdb"
    preparer = _QuotingPreparer
    div_is_floordiv = False
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """DuckDB's own module."""
        return duckdb

    def create_connect_args(self, url: sa.URL) -> Any:
        """The arguments of `connect`: the database, its configuration, and the folders that it may read."""
        config = dict(url.query)
        return (), {"database": url.database, "folders": json.loads(str(config.pop(FOLDERS))), "config": config}

    def connect(self, *_: Any, **arguments: Any) -> Any:
        """A connection as `connect` opens it."""
        return connect(**arguments)

    def initialize(self, connection: sa.Connection) -> None:  # noqa: ARG002 - nothing needs to be asked
        """Know what PostgreSQL would be asked for."""
        self.server_version_info, self.default_schema_name, self._backslash_escapes = (15,), "main", False

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:  # noqa: ARG002
        """Execute one SELECT."""
        if problem := select_problem(statement):
            raise Refused(problem)
        cursor.execute(statement, parameters)

    def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
        """The same without parameters."""
        self.do_execute(cursor, statement, (), context)

    do_executemany = do_execute

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin nothing."""

    do_commit = do_rollback = do_begin

    def get_columns(self, connection: sa.Connection, table_name: str, *_: Any, **__: Any) -> Any:
        """The columns of a table or view."""
        rows = connection.exec_driver_sql(_COLUMNS, (str(table_name),))
        return [{"name": name, "type": _type(kind), "nullable": True, "default": None} for name, kind in rows]

    def get_pk_constraint(self, *_: Any, **__: Any) -> Any:
        """None: the database holds views."""
        return {"constrained_columns": [], "name": None}

    def has_table(self, connection: sa.Connection, table_name: str, *_: Any, **__: Any) -> bool:
        """Whether there is a table or view of this name."""
        return bool(self.get_columns(connection, table_name))


@cache
def _type(kind: str) -> sa.types.TypeEngine[Any]:
    word, _, arguments = kind.partition("(")
    if kind.endswith("]"):
        return ARRAY(sa.types.NullType)
    if word == "DECIMAL":
        precision, _, scale = arguments.rstrip(")").partition(",")
        return sa.Numeric(int(precision), int(scale))
    if word == "TIMESTAMP WITH TIME ZONE":
        return sa.TIMESTAMP(timezone=True)
    return _TYPES[word]() if word in _TYPES else type(word, (sa.Integer if "INT" in word else sa.types.NullType,), {})()


def register() -> str:
    """Register the dialect with SQLAlchemy, as often as you like, and return its scheme."""
    registry.register(SCHEME, __name__, ReadOnlyDialect.__name__)
    return SCHEME
