"""One read-only snapshot of a PostgreSQL database, through ADBC. No other module imports that library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa

from prefect_stagegate.errors import AccessDenied, MissingExtra, SourceError, SourceUnavailable, install_hint
from prefect_stagegate.quoting import literal

BATCH_BYTES = 16 << 20
"""About the bytes of a result that are held at a time. Each batch becomes one row group."""

_LOGIN = re.compile(r"authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist|password")
_ABSENT = re.compile(r"database .* does not exist|definition of service|certificate|SSL")
_GONE = re.compile(r"FATAL: |server closed the connection|no connection|could not receive|SSL SYSCALL|timed out")
_STATE = re.compile(r"\s*SQLSTATE: \w+")
_DENIED = ("28", "42501")
_FAILED = ("08", "53", "57P", "40")
"""Classes of SQLSTATE after which another try may succeed: connection, resources, shutdown, conflict."""
_TIMEOUT = "statement timeout"


class Session:
    """A connection with one transaction, which sees one state of the database, whatever others commit meanwhile.

    With repeatable read, every statement sees the snapshot of the first. The read-only transaction refuses writes.

    `uri`, for libpq, may hold a password. `statement_timeout` is in PostgreSQL's format.

    Raises:
        MissingExtra: ADBC isn't installed.
        AccessDenied, SourceError, SourceUnavailable: The server can't be used.
    """

    def __init__(self, uri: str, *, url: str, statement_timeout: str) -> None:
        try:
            from adbc_driver_manager import Error
            from adbc_driver_postgresql import StatementOptions, dbapi
        except ImportError as error:
            message = f"The client library for {url} is not installed"
            raise MissingExtra(message, hint=install_hint("sql"), source=url) from error
        self._url = url
        self._errors = (Error, OSError, pa.ArrowException)  # the last comes from a result's stream
        try:
            # Else the driver would begin a transaction of its own, with another isolation.
            self._connection = dbapi.connect(uri, autocommit=True)
        except self._errors as error:
            raise self._refused(str(error)) from error
        self._cursor: Any = self._connection.cursor()
        self._cursor.adbc_statement.set_options(**{StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(BATCH_BYTES)})
        try:
            self._begin(statement_timeout)
        except SourceError:
            self.close()
            raise

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        self._execute(query)
        try:
            return list(self._cursor.fetchall())
        except self._errors as error:
            raise self._explained(error) from error

    def schema(self, query: str) -> pa.Schema:
        """The schema of a result, without running the query."""
        try:
            return self._cursor.adbc_execute_schema(query)
        except self._errors as error:
            raise self._explained(error) from error

    def batches(self, query: str) -> Iterator[pa.RecordBatch]:
        """The result, about BATCH_BYTES at a time."""
        self._execute(query)
        try:
            yield from self._cursor.fetch_record_batch()
        except self._errors as error:
            raise self._explained(error) from error

    def cancel(self) -> None:
        """Cancel the statement that another thread runs in this session."""
        with suppress(*self._errors):
            self._cursor.adbc_cancel()

    def close(self) -> None:
        """End the transaction and the connection."""
        with suppress(*self._errors):
            self._cursor.close()
        with suppress(*self._errors, RuntimeError):
            self._connection.close()

    def _begin(self, statement_timeout: str) -> None:
        # Fixed settings: the same rows must give the same bytes, whatever the user's or the database's defaults are.
        for statement in (
            "set standard_conforming_strings = on",
            "set datestyle = 'ISO'",
            "set timezone = 'UTC'",
            f"set statement_timeout = {literal(statement_timeout)}",
            # Every statement of a repeatable read sees the snapshot of the first one.
            "begin isolation level repeatable read, read only",
        ):
            self._execute(statement)

    def _execute(self, statement: str) -> None:
        try:
            self._cursor.execute(statement)
        except self._errors as error:
            raise self._explained(error) from error

    def _refused(self, text: str) -> SourceError:
        message = _server_message(text)
        if _ABSENT.search(message):
            return SourceError(f"The server can't be used: {message}", source=self._url)
        if _LOGIN.search(message):
            hint = "Set user and password by `credentials:`, PGUSER and PGPASSWORD, ~/.pgpass or a service file."
            return AccessDenied(f"Access is denied: {message}", hint=hint, source=self._url)
        return SourceUnavailable(f"The server can't be reached: {message}", source=self._url)

    def _explained(self, error: Exception) -> SourceError:
        """The typed error for an exception. One of a result's stream has no SQLSTATE, only the server's text."""
        state, text = getattr(error, "sqlstate", None) or "", str(error)
        message = _server_message(text)
        if _TIMEOUT in text:
            hint = "Give it longer by the option `statement_timeout: 4h`, or divide it by `partition_by:`."
            return SourceError(f"The query took too long: {message}", hint=hint, source=self._url)
        if state.startswith(_DENIED):
            hint = "Grant SELECT to the user, or use another one by `credentials:`."
            return AccessDenied(f"Access is denied: {message}", hint=hint, source=self._url)
        if state.startswith(_FAILED) or (not state and _GONE.search(text)):
            return SourceUnavailable(f"The server failed: {message}", source=self._url)
        return SourceError(f"The server refuses the query: {message}", source=self._url)


def _server_message(text: str) -> str:
    """The server's message in one line, without the statement, which ADBC repeats."""
    text = _STATE.sub("", text.partition("\nQuery was:")[0])
    message = re.split(r"ERROR: |FATAL: ", text)[-1]
    return " ".join(message.partition("\nLINE ")[0].split())
