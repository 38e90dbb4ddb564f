"""A version's manifest: which paths it may have, the order of its rows, and its digest.

The digest is SHA-256 over one line for each entry, `path NUL size NUL blake3:hex LF`, in the order of the paths' UTF-8
bytes, and over nothing else. The same bytes under the same paths are the same version, wherever they came from.

Pure: no I/O and no clock. Everything works on streams, so that memory does not grow with the number of entries.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Entry, Origin, SourceObject
from prefect_stagegate.units import count_text

SEGMENT_BYTES = 255
"""The longest file name that Linux file systems take, in bytes."""
PATH_BYTES = 3072
"""The longest path that an entry may have, in bytes. Leaves room for the cache's own folders below Linux's 4096."""
LARGEST = 2**63 - 1
"""Bytes of the largest file that Linux and the cache's index know."""
NAMED = 20
"""Refused objects that an error names; it counts the others."""
DEPTH = 256
"""The most segments that a path may have: programs that walk trees give up at some depth."""
_PLAIN = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
"""The form of most paths. One that matches and is no longer than a segment may be needs no other check."""
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The immutable list of a version's entries, read as a stream."""

    dataset: str
    digest: str
    files: int
    bytes: int
    entries: Callable[[], Iterator[Entry]]
    """Starts a new pass over the entries, sorted by path."""


@dataclass(frozen=True, slots=True)
class Seal:
    """A version's digest and totals, from one pass over the sorted entries."""

    digest: str
    files: int
    bytes: int


def row(entry: Entry | Origin) -> bytes:
    r"""The entry's line, as in the digest and in `stagegate show --rows`.

    >>> row(Entry("a.txt", 3, "blake3:ab"))
    b'a.txt\x003\x00blake3:ab\n'
    """
    return f"{entry.path}\0{entry.size}\0{entry.digest}\n".encode()


def path_problem(path: str) -> str:
    """Say why `path` can't be in a manifest; empty when it can.

    Names come from outside. A path is refused that could leave the dataset's folder, break a line of the manifest,
    or not be written to a file system.

    >>> path_problem("flights/2013-01.parquet"), path_problem("../etc/passwd")
    ('', 'it has a segment ".."')
    """
    if len(path) <= SEGMENT_BYTES and _PLAIN.fullmatch(path):
        return ""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if _CONTROL.search(encoded):
        return "it has a control character"
    if len(encoded) > PATH_BYTES:
        return f"it is longer than {PATH_BYTES} bytes"
    return _segments_problem(encoded.split(b"/"))


def _segments_problem(segments: list[bytes]) -> str:
    if len(segments) > DEPTH:
        return f"it is deeper than {DEPTH} names"
    if b"" in segments:
        return "it is empty, or has an empty segment"
    for dots in (b"..", b"."):
        if dots in segments:
            return f'it has a segment "{dots.decode()}"'
    if max(map(len, segments)) > SEGMENT_BYTES:
        return f"a name in it is longer than {SEGMENT_BYTES} bytes"
    return ""


def name_key(path: str, *, folds_case: bool = False) -> str:
    r"""A path's form for comparisons: paths with equal keys are twins, which people or volumes take for one name.

    Letters with accents may be written in two ways (NFC and NFD). Linux tells them apart, macOS and people don't.

    Args:
        path: A path of the dataset, or a folder of one.
        folds_case: Whether upper and lower case are equal, too, as on volumes that fold case.

    >>> name_key("cafe\u0301") == name_key("caf\u00e9"), name_key("A") == name_key("a")
    (True, False)
    >>> name_key("Stra\u00dfe", folds_case=True) == name_key("STRASSE", folds_case=True)
    True
    """
    if folds_case:
        # Unicode's caseless matching folds the decomposed form; another order would leave some twins apart.
        path = unicodedata.normalize("NFD", path).casefold()
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def check_objects(objects: Iterable[tuple[str, SourceObject, str]]) -> None:
    """Refuse objects whose paths or sizes can't be in a manifest, all of them in one error.

    Args:
        objects: Each object's path in the dataset, the object, and its source's URL.

    Raises:
        UsageError: There are such objects. The error names the first ones, each with its reason.
    """
    refused = [
        (listed.key, url, problem)
        for path, listed, url in objects
        if (problem := path_problem(path) or ("" if 0 <= listed.size <= LARGEST else "no file has its size"))
    ]
    if not refused:
        return
    reasons = [f"{key!r} of {url}: {problem}" for key, url, problem in refused[:NAMED]]
    more = [f"and {len(refused) - NAMED} more"] if len(refused) > NAMED else []
    count = count_text(len(refused), "object")
    raise UsageError(
        f"{count} can't be in a dataset: {'; '.join(reasons + more)}",
        hint="Correct them at their source, or leave them out by `exclude:`.",
    )


def seal(entries: Iterable[Entry]) -> Seal:
    """Digest entries that come sorted by path.

    Raises:
        UsageError: A path can't be in a manifest, or one entry's path is another entry's folder.
    """
    digest = hashlib.sha256()
    files = size = 0
    for entry in _checked(entries):
        digest.update(row(entry))
        files += 1
        size += entry.size
    return Seal("sha256:" + digest.hexdigest(), files, size)


def _checked(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Pass entries on; refuse bad paths, a wrong order, and a file where another entry needs a folder."""
    previous = ""
    # Paths with one beginning are neighbours in the order. So a file can be the folder of a later path only while all
    # paths between begin with it, too: a stack of such files is enough.
    prefixes: list[str] = []
    for entry in entries:
        path = entry.path
        if problem := path_problem(path):
            raise UsageError(f"The path {path!r} can't be in a dataset: {problem}", object=path)
        # As texts, without encoding each path: code points have the order of their UTF-8 bytes.
        if previous and path <= previous:
            raise ValueError(f"entries are not sorted: {path!r} after {previous!r}")
        while prefixes and not path.startswith(prefixes[-1]):
            prefixes.pop()
        if folder := next((prefix for prefix in prefixes if path.startswith(prefix + "/")), ""):
            raise UsageError(
                f"{folder!r} is a file, and {path!r} needs it to be a folder",
                hint="Give one of the two sources another `into:`.",
            )
        prefixes.append(path)
        previous = path
        yield entry


class Change(StrEnum):
    """How an entry differs from one version to the next."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry that differs between two versions; `old` or `new` is None where it is absent."""

    change: Change
    path: str
    old: Entry | None
    new: Entry | None


def diff(old: Iterable[Entry], new: Iterable[Entry]) -> Iterator[Difference]:
    """Compare two sorted streams of entries in one pass."""
    left, right = iter(old), iter(new)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.path < b.path):
            assert a is not None  # noqa: S101 - one of the two is there
            yield Difference(Change.REMOVED, a.path, a, None)
            a = next(left, None)
        elif a is None or b.path < a.path:
            yield Difference(Change.ADDED, b.path, None, b)
            b = next(right, None)
        else:
            if a != b:
                yield Difference(Change.CHANGED, a.path, a, b)
            a, b = next(left, None), next(right, None)
