"""Identifiers and string literals of SQL."""

from __future__ import annotations


def identifier(name: str) -> str:
    """A quoted identifier.

    >>> identifier('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal, for `standard_conforming_strings = on`.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
