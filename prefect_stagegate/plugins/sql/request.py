"""A SQL source's URL and options, read and checked before anything is sent to a server."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from prefect_stagegate.doors import unknown_option
from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.sql import SQL_PARAMETERS

CONNECT_SECONDS = 10
STATEMENT_TIMEOUT = "1h"
MOST_PARTITIONS = 10_000

Numeric = str | tuple[int, int]
"""The type of a numeric column: `double`, `text`, or a decimal's precision and scale."""

_NAME = re.compile(r'("(?:[^"]|"")+"|[^."]+)(?:\.("(?:[^"]|"")+"|[^."]+))?')
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_WIDEST = 38
"""Most digits of a decimal of 16 bytes, which every reader of Parquet supports."""


@dataclass(frozen=True, slots=True)
class SqlRequest:
    """One table or query, and how it is rendered as Parquet."""

    url: str
    """Without credentials."""
    identity: str
    """The URL, and a digest of everything that decides which rows come in which order."""
    name: str
    """The name of the table or query. Also names the object, where there is only one."""
    table: tuple[str, str]
    """Schema (may be empty) and table; both empty for a query."""
    query: str
    order_by: tuple[str, ...] | None
    """None: by the primary key, else by all columns."""
    partition_by: str
    partitions: int
    """The number of ranges; 0: one partition for each value of `partition_by`."""
    numeric: Mapping[str, Numeric]
    """By column; the empty name stands for the others."""
    statement_timeout: str


def read_request(url: str, options: Mapping[str, Any]) -> SqlRequest:
    """Read a URL such as `postgresql://host/db#nyc.flights`, and the options.

    Raises:
        UsageError: One of them can't be used.
    """
    parts = urlsplit(url)
    place = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"
    # A semicolon would end the statement that the query becomes a part of.
    name, query = unquote(parts.fragment), str(options.get("query") or "").strip().rstrip(";")
    if not name:
        raise UsageError(
            f"{place} names no table",
            hint="Write it behind a hash: postgresql://host/db#schema.table. With `query:`, it is the file's name.",
        )
    order = options.get("order_by")
    by, partitions = str(options.get("partition_by") or ""), _partitions(options)
    # What decides the rows, and no more: another password must not make all objects new.
    content = [query, order, by, partitions, options.get("numeric")]
    digest = hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]
    return SqlRequest(
        url=f"{place}#{parts.fragment}",
        identity=f"{place}#{parts.fragment} {digest}",
        name=name,
        table=("", "") if query else _table(name),
        query=query,
        order_by=None if order is None else (order,) if isinstance(order, str) else tuple(map(str, order)),
        partition_by=by,
        partitions=partitions,
        numeric=_numeric(options.get("numeric")),
        statement_timeout=str(options.get("statement_timeout") or STATEMENT_TIMEOUT),
    )


def connection_uri(url: str, options: Mapping[str, Any], *, idle: float) -> str:
    """The URI for libpq. It may hold the password, so it must not be logged or stored.

    libpq finds by itself what neither URL nor options name: in PGPASSWORD, `~/.pgpass` and PGSERVICE.

    Raises:
        UsageError: The URL has a password, or a parameter that it may not have.
    """
    parts = urlsplit(url)
    if parts.password is not None:
        raise UsageError(
            "The URL of a SQL source holds a password", hint="Leave it to ~/.pgpass, PGPASSWORD or `credentials:`."
        )
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in given.items():
        if name == "host" and not value.startswith("/"):
            hint = "Write the host before the path; ?host= takes the folder of a socket."
            raise UsageError(f"The URL of a SQL source can't have host={value}", hint=hint)
        if SQL_PARAMETERS.kind(name) is None:
            hint = unknown_option(SQL_PARAMETERS, name).hint
            raise UsageError(f"The URL of a SQL source can't have {name}=", hint=hint)
        if name == "sslkey" and ":" in value:
            hint = "Name the key's file; an engine stands in PGSSLKEY or in a service file."
            raise UsageError(f"The URL of a SQL source names an SSL engine: sslkey={value}", hint=hint)
    login = {"user": options.get("user") or options.get("username"), "password": options.get("password")}
    # The URL's parameters override ours, and the login overrides both.
    query = {**_timeouts(idle), **given, **{name: str(value) for name, value in login.items() if value}}
    return f"postgresql://{parts.netloc}{parts.path}?{urlencode(query, quote_via=quote)}"


def _timeouts(idle: float) -> dict[str, str]:
    """Encoding, and time-outs for a silent network. A silent statement ends by its own time-out."""
    return {
        "application_name": "stagegate",
        "client_encoding": "UTF8",
        "connect_timeout": str(CONNECT_SECONDS),
        "keepalives_idle": str(max(1, int(idle / 2))),
        "keepalives_interval": str(max(1, int(idle / 6))),
        "keepalives_count": "3",
        "tcp_user_timeout": str(int(idle * 1000)),
    }


def _table(name: str) -> tuple[str, str]:
    match = _NAME.fullmatch(name)
    if not match:
        raise UsageError(f"{name!r} is no table's name", hint='Write schema.table; "a.b" in quotes is one name.')
    first, second = (_unquoted(part) if part else "" for part in match.groups())
    return (first, second) if second else ("", first)


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _partitions(options: Mapping[str, Any]) -> int:
    given = options.get("partitions")
    if given is None:
        return 0
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= MOST_PARTITIONS:
        raise UsageError(f"`partitions: {given}` is no number between 1 and {MOST_PARTITIONS}")
    if not options.get("partition_by"):
        raise UsageError("`partitions:` needs `partition_by:`, the column whose range is divided")
    return given


def _numeric(given: Any) -> dict[str, Numeric]:
    columns = given if isinstance(given, Mapping) else {} if given is None else {"": given}
    return {str(column): _numeric_type(str(text)) for column, text in columns.items()}


def _numeric_type(text: str) -> Numeric:
    if text in ("double", "text"):
        return text
    match = _DECIMAL.fullmatch(text)
    precision, scale = map(int, match.groups()) if match else (0, 0)
    if not 1 <= precision <= _WIDEST or scale > precision:
        raise UsageError(
            f"`numeric: {text}` is no type", hint=f"Write decimal(12, 2), of {_WIDEST} digits at most, double, or text."
        )
    return precision, scale
