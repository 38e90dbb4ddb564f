"""Names and texts as SQL writes them."""

from __future__ import annotations


def identifier(name: str) -> str:
    """A name, exactly as it is.

    >>> identifier('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text, where `standard_conforming_strings` is on.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
