"""SQLAlchemy's DuckDB dialect, made to work under Great Expectations.

Great Expectations runs a query, gives its connection back to the pool, and only then fetches the rows. The pool rolls
the connection back, and DuckDB drops the rows of a query whose transaction ends: every expectation fails with "list
index out of range" (great_expectations issues 10738 and 11579). The data is only read here, so this dialect opens no
transaction that could end.

Great Expectations sends every statement of a suite through this dialect. Outside of `definitions`, the dialect runs
statements that are one SELECT, and refuses all others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from duckdb_sqlalchemy import Dialect
from sqlalchemy.dialects import registry

from prefect_stagegate.validations.queries.duck import lock
from prefect_stagegate.validations.worker.statements import select_problem

SCHEME = "stagegate_duckdb"
"""The scheme of SQLAlchemy URLs that use this dialect."""
FOLDERS = "stagegate_folders"
"""The key in the URL's query that holds, as JSON, the folders below which files may be read."""
_defining = ContextVar("defining", default=False)


class Refused(Exception):
    """A statement that no suite may make; its text says why."""


@contextmanager
def definitions() -> Iterator[None]:
    """Let this block create tables and views; its statements come from the engine, not from a suite."""
    token = _defining.set(True)
    try:
        yield
    finally:
        _defining.reset(token)


class ReadOnlyDialect(Dialect):
    """DuckDB without transactions and with a locked configuration, which runs single SELECTs only."""

    supports_statement_cache = True

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        """Connect, and lock the configuration unless an earlier connection to the same database did."""
        folders = json.loads(cparams["url_config"].pop(FOLDERS))
        connection = super().connect(*cargs, **cparams)
        if not connection.execute("SELECT current_setting('lock_configuration')").fetchone()[0]:
            lock(connection, folders)
        return connection

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Execute a statement of the engine's own, or one SELECT."""
        _admit(statement)
        super().do_execute(cursor, statement, parameters, context)

    def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
        """The same without parameters."""
        _admit(statement)
        super().do_execute_no_params(cursor, statement, context)

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """The same for many rows of parameters."""
        _admit(statement)
        super().do_executemany(cursor, statement, parameters, context)

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin nothing."""

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit nothing."""

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll nothing back."""


def _admit(statement: str) -> None:
    problem = "" if _defining.get() else select_problem(statement)
    if problem:
        raise Refused(problem)


def register() -> str:
    """Register the dialect with SQLAlchemy, as often as you like, and return its scheme."""
    registry.register(SCHEME, __name__, ReadOnlyDialect.__name__)
    return SCHEME
