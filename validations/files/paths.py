"""Which of a dataset's paths a contract's glob names."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from prefect_stagegate.patterns import character_class, glob_matcher

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


@lru_cache(maxsize=256)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Compile a glob into a test for paths: `*` and `?` match within a folder, `**/` any number of folders.

    >>> [matcher("flights/*.parquet")(path) for path in ("flights/a.parquet", "flights/old/a.parquet")]
    [True, False]
    >>> [matcher("**/*.csv")(path) for path in ("a.csv", "x/y/a.csv", "a.csv.gz")]
    [True, True, False]
    """
    return glob_matcher("".join(map(_translate, _TOKEN.findall(pattern))), pattern)


def can_be_below(pattern: str, folder: str) -> bool:
    """Whether a glob can name a path below a folder, which is empty or ends in a slash."""
    segments = pattern.split("/")
    for name in folder.split("/")[:-1]:
        segment = segments.pop(0)
        if "**" in segment:
            return True
        if not segments or not matcher(segment)(name):
            return False
    return True


def _translate(token: str) -> str:
    simple = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in simple:
        return simple[token]
    if len(token) == 1:
        return re.escape(token)
    return character_class(token[1:-1])
