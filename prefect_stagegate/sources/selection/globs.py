"""Which keys of a source a spec takes: globs as in .gitignore and rclone.

A pattern without a slash matches the name alone, at any depth. One with a slash matches the whole key, from the
source's root. A pattern that ends with a slash matches everything below folders of that name.

    *       any characters of one name          ?       one of them           [ab]  [!a-z]   one of these, none of these
    **      any number of folders               {a,b}   either of these

Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from prefect_stagegate.errors import UsageError
from prefect_stagegate.patterns import character_class, glob_matcher
from prefect_stagegate.sources.adapter import Wanted
from prefect_stagegate.sources.selection.hive_partitions import in_partitions

_TOKEN = re.compile(r"\*\*/|/\*\*\Z|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{[^{}]*\}|\\.|.", re.DOTALL)
_SPECIAL = re.compile(r"[*?\[{\\]")
"""What makes a glob match more than its own characters."""
_FIXED = {"**/": "(?:[^/]+/)*", "/**": "/.+", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True, slots=True)
class GlobFilter:
    """The globs and partition conditions of a spec, called with a key. A folder's key ends with a slash."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    partitions: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __call__(self, key: str) -> bool:
        """Whether an object is taken."""
        return selected(key, self.include, self.exclude) and in_partitions(key, self.partitions)

    def enters(self, folder: str) -> bool:
        """Whether an object below a folder may be taken."""
        return (
            not any(_covers(pattern, folder) for pattern in self.exclude)
            and (not self.include or any(_reaches(pattern, folder) for pattern in self.include))
            and in_partitions(folder, self.partitions)
        )

    def by_path(self, folder: str) -> bool:
        """Whether `include` may take a folder's files by their path, and not only by their names."""
        return not self.include or any(_is_path(glob) and _reaches(glob, folder) for glob in self.include)

    def excludes(self, key: str) -> bool:
        """Whether `exclude` leaves a path out, be it a file or a folder."""
        return any(_compiled(glob)(key) or _covers(glob, key + "/") for glob in self.exclude)


def enters(wanted: Wanted, folder: str) -> bool:
    """Whether an object below a folder may be wanted: always, unless `wanted` is a `GlobFilter` and says no.

    A folder's key ends with a slash.
    """
    return not isinstance(wanted, GlobFilter) or wanted.enters(folder)


def by_path(wanted: Wanted, folder: str) -> bool:
    """Whether a folder's files may be wanted by their path: always, unless a `GlobFilter` says no."""
    return not isinstance(wanted, GlobFilter) or wanted.by_path(folder)


def excludes(wanted: Wanted, key: str) -> bool:
    """Whether a path is left out both as a file and as a folder, so that it need not be examined."""
    if isinstance(wanted, GlobFilter):
        return wanted.excludes(key)
    return not (wanted(key) or wanted(key + "/"))


def selected(key: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> bool:
    """Whether `key` matches one of `include` (or there is none) and none of `exclude`.

    >>> selected("2013/01.parquet", ["*.parquet"]), selected("tmp/x.parquet", ["*.parquet"], ["tmp/"])
    (True, False)

    Raises:
        UsageError: A pattern is not well formed.
    """
    if include and not any(_compiled(pattern)(key) for pattern in include):
        return False
    return not any(_compiled(pattern)(key) for pattern in exclude)


def _covers(pattern: str, folder: str) -> bool:
    """Whether a pattern matches everything below a folder."""
    # A pattern with such an end that matches one name in the folder matches every name below it.
    return pattern.endswith(("/", "**")) and _compiled(pattern)(folder + "x")


def _reaches(pattern: str, folder: str) -> bool:
    """Whether a pattern may match something below a folder, judged by the part before its first wildcard."""
    if not _is_path(pattern):
        return True
    path = pattern.removeprefix("/")
    special = _SPECIAL.search(path)
    beginning = path[: special.start()] if special else path
    return beginning.startswith(folder) or folder.startswith(beginning)


def _is_path(pattern: str) -> bool:
    """Whether a pattern matches whole keys, and not names at any depth."""
    return "/" in pattern.removesuffix("/")


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Callable[[str], bool]:
    body, is_folder = pattern.removesuffix("/"), pattern.endswith("/")
    anchored = _is_path(pattern)
    body = body.removeprefix("/")
    if not body:
        raise UsageError(f"The pattern {pattern!r} matches nothing", hint="Use `**` for everything.")
    try:
        expression = ("" if anchored else "(?:[^/]+/)*") + _translate(body) + ("/.+" if is_folder else "")
        return glob_matcher(expression, body)
    except ValueError as error:
        raise UsageError(f"The pattern {pattern!r} is not well formed: {error}") from error


def _translate(pattern: str) -> str:
    return "".join(_piece(token) for token in _TOKEN.findall(pattern))


def _piece(token: str) -> str:
    if token in _FIXED:
        return _FIXED[token]
    # Alternatives may hold wildcards of their own.
    if token.startswith("{") and token.endswith("}") and len(token) > 1:
        return "(?:" + "|".join(map(_translate, token[1:-1].split(","))) + ")"
    if token.startswith("[") and len(token) > 2:  # noqa: PLR2004 - a class with something in it
        return character_class(token[1:-1])
    return re.escape(token[1] if token.startswith("\\") and len(token) > 1 else token)
