"""SQL's quoting of names and strings, which PostgreSQL and DuckDB share."""

from __future__ import annotations


def identifier(name: str) -> str:
    """A quoted identifier of SQL.

    >>> identifier('say "x" now')
    '"say ""x"" now"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal of SQL, for `standard_conforming_strings = on` where the server is PostgreSQL.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
