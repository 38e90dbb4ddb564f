"""Which of a dataset's paths a contract's glob names."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


def matcher(pattern: str) -> Callable[[str], bool]:
    """A test for paths: `*` and `?` stay within a folder, `**/` stands for any number of folders.

    >>> [matcher("flights/*.parquet")(path) for path in ("flights/a.parquet", "flights/old/a.parquet")]
    [True, False]
    >>> [matcher("**/*.csv")(path) for path in ("a.csv", "x/y/a.csv", "a.csv.gz")]
    [True, True, False]
    """
    compiled = _compile(pattern)
    return lambda path: compiled.fullmatch(path) is not None


@lru_cache(maxsize=256)
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(_translate(token) for token in _TOKEN.findall(pattern)), re.DOTALL)


def _translate(token: str) -> str:
    simple = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in simple:
        return simple[token]
    if len(token) == 1:
        return re.escape(token)
    negated = token.startswith("[!")
    characters = token[2 if negated else 1 : -1].replace("\\", "\\\\").replace("[", "\\[")
    return f"[{'^/' if negated else ''}{characters}]"
