"""Which keys of a source a spec lets in: globs as in .gitignore, the ones that rclone's users write too.

A pattern without a slash speaks about the name alone, at any depth; one with a slash speaks about the whole key, from
the source's root. A pattern that ends with a slash takes everything below folders of that name.

    *       any characters of one name          ?       one of them           [ab]  [!a-z]   one of these, none of these
    **      any number of folders               {a,b}   either of these

Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from prefect_stagegate.errors import UsageError

_TOKEN = re.compile(r"\*\*/|/\*\*\Z|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{[^{}]*\}|\\.|.", re.DOTALL)
_FIXED = {"**/": "(?:[^/]+/)*", "/**": "/.+", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def selected(key: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> bool:
    """Whether `key` matches one of `include` (or there is none) and none of `exclude`.

    >>> selected("2013/01.parquet", ["*.parquet"]), selected("tmp/x.parquet", ["*.parquet"], ["tmp/"])
    (True, False)

    Raises:
        UsageError: A pattern is not well formed.
    """
    if include and not any(_compiled(pattern).fullmatch(key) for pattern in include):
        return False
    return not any(_compiled(pattern).fullmatch(key) for pattern in exclude)


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    body, folder = pattern.removesuffix("/"), pattern.endswith("/")
    anchored = "/" in body
    body = body.removeprefix("/")
    if not body:
        raise UsageError(f"The pattern {pattern!r} matches nothing", hint="Use `**` for everything.")
    try:
        return re.compile(("" if anchored else "(?:[^/]+/)*") + _translate(body) + ("/.+" if folder else ""), re.DOTALL)
    except re.error as error:
        raise UsageError(f"The pattern {pattern!r} is not well formed: {error}") from error


def _translate(pattern: str) -> str:
    return "".join(_piece(token) for token in _TOKEN.findall(pattern))


def _piece(token: str) -> str:
    if token in _FIXED:
        return _FIXED[token]
    if token.startswith("{") and token.endswith("}") and len(token) > 1:
        return "(?:" + "|".join(map(_translate, token[1:-1].split(","))) + ")"
    if token.startswith("[") and len(token) > 2:  # noqa: PLR2004 - a class with something in it
        inner = token[1:-1].replace("\\", "\\\\").replace("^", "\\^")
        return f"(?!/)[^{inner[1:]}]" if inner.startswith("!") else f"(?!/)[{inner}]"
    return re.escape(token[1] if token.startswith("\\") and len(token) > 1 else token)
