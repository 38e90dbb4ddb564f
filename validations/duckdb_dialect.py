"""SQLAlchemy's DuckDB dialect, made to work under Great Expectations.

Great Expectations runs a query, gives its connection back to the pool, and only then fetches the rows. The pool rolls
the connection back, and DuckDB drops the rows of a query whose transaction ends: every expectation fails with "list
index out of range" (great_expectations issues 10738 and 11579). The data is only read here, so this dialect opens no
transaction that could end.
"""

from __future__ import annotations

from typing import Any

from duckdb_sqlalchemy import Dialect
from sqlalchemy.dialects import registry

SCHEME = "stagegate_duckdb"
"""What a SQLAlchemy URL begins with to get this dialect."""


class ReadOnlyDialect(Dialect):
    """DuckDB without transactions: results outlive the connection's return to its pool."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin nothing."""

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit nothing."""

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll nothing back."""


def register() -> str:
    """Make the dialect known to SQLAlchemy and return its scheme; repeating it does no harm."""
    registry.register(SCHEME, __name__, ReadOnlyDialect.__name__)
    return SCHEME
