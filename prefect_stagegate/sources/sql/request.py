"""What a SQL source asks for: its URL and options, read and judged before a server hears of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from prefect_stagegate.errors import UsageError
from prefect_stagegate.spec.permitted import SQL_PARAMETERS

CONNECT_SECONDS = 10
STATEMENT_TIMEOUT = "1h"
MOST_PARTITIONS = 10_000

Numeric = str | tuple[int, int]
"""What a numeric column becomes: `double`, `text`, or a decimal's precision and scale."""

_NAME = re.compile(r'("(?:[^"]|"")+"|[^."]+)(?:\.("(?:[^"]|"")+"|[^."]+))?')
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_WIDEST = 38
"""Digits of a decimal that every reader of Parquet knows: 16 bytes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One table or query, and how it is rendered."""

    url: str
    """As people see it."""
    identity: str
    """The URL, with a digest of all that decides which rows come and in which order."""
    name: str
    """The table, or what the query is called; names the object where there is one."""
    table: tuple[str, str]
    """Schema, which may be empty, and table; both empty for a query."""
    query: str
    order_by: tuple[str, ...] | None
    """None: by the primary key, or else by all columns."""
    partition_by: str
    partitions: int
    """0: one for each value of `partition_by`."""
    numeric: Mapping[str, Numeric]
    """By column; the empty name stands for the others."""
    statement_timeout: str


def read_request(url: str, options: Mapping[str, Any]) -> Request:
    """Read a URL such as `postgresql://host/db#nyc.flights`, and the options.

    Raises:
        UsageError: One of them can't be used.
    """
    parts = urlsplit(url)
    place = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"
    name, query = unquote(parts.fragment), str(options.get("query") or "").strip().rstrip(";")
    if not name:
        raise UsageError(
            f"{place} names no table",
            hint="Write it behind a hash: postgresql://host/db#schema.table. Of a `query:` it names the file.",
        )
    order = options.get("order_by")
    by, partitions = str(options.get("partition_by") or ""), _partitions(options)
    asked = [query, order, by, partitions, options.get("numeric")]
    digest = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]
    return Request(
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
    """The address for libpq, password included: it is kept nowhere.

    What stands in neither URL nor options libpq takes from where its users keep it: PGPASSWORD, `~/.pgpass`, PGSERVICE.

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
            hint = _capital(SQL_PARAMETERS.unknown(name)[1])
            raise UsageError(f"The URL of a SQL source can't have {name}=", hint=hint)
        if name == "sslkey" and ":" in value:
            hint = "Name the key's file; an engine stands in PGSSLKEY or in a service file."
            raise UsageError(f"The URL of a SQL source names an SSL engine: sslkey={value}", hint=hint)
    login = {"user": options.get("user") or options.get("username"), "password": options.get("password")}
    query = {**_patience(idle), **given, **{name: str(value) for name, value in login.items() if value}}
    return f"postgresql://{parts.netloc}{parts.path}?{urlencode(query, quote_via=quote)}"


def _patience(idle: float) -> dict[str, str]:
    """How long a silent network is waited for; a silent statement ends by its own timeout."""
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
    found = _NAME.fullmatch(name)
    if not found:
        raise UsageError(f"{name!r} is no table's name", hint='Write schema.table; "a.b" in quotes is one name.')
    first, second = (_bare(part) if part else "" for part in found.groups())
    return (first, second) if second else ("", first)


def _bare(part: str) -> str:
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
    found = _DECIMAL.fullmatch(text)
    precision, scale = map(int, found.groups()) if found else (0, 0)
    if not 1 <= precision <= _WIDEST or scale > precision:
        raise UsageError(
            f"`numeric: {text}` is no type", hint=f"Write decimal(12, 2), of {_WIDEST} digits at most, double, or text."
        )
    return precision, scale


def _capital(hint: str) -> str:
    return hint[:1].upper() + hint[1:] + ("" if hint.endswith("?") else ".")
