"""A spec or suite as it was written: its values, where each of them stands, and what is wrong with them.

A document comes from a file, a URL or a dictionary. Only its values as JSON knows them go on; the lines stay here, for
the problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.spec.confidential import without_secrets
from prefect_stagegate.spec.location import folder_of, local_path
from prefect_stagegate.spec.permitted import DOCUMENT_SCHEMES, chain_problem, scheme_of
from prefect_stagegate.spec.yamltree import DEEPEST, Loc, NotYaml, read_tree

if TYPE_CHECKING:
    from prefect_stagegate.http import Allowed

MAX_BYTES = 1 << 20
"""The largest spec or suite that is read: 1 MiB."""
DOCUMENT_SECONDS = 30.0
"""Time for one spec or suite to come from a web server."""
_OK, _GONE = 200, (404, 410)


class Unreadable(Exception):
    """A file that can't be read, with the reason for people."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    file: str
    line: int
    """Counted from 1; 0 when the values came from a dictionary or the whole file is meant."""
    key: str
    what: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.key, self.what) if part)


@dataclass(slots=True)
class Document:
    """The values of one file or dictionary, and how to speak about them."""

    label: str
    """What problems call it: the path or address that the user gave."""
    base: str
    """The folder that paths in it are relative to: an absolute path or a URL."""
    values: Any = None
    lines: Mapping[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    allowed: Allowed = ()
    """Hosts that what it names may be read from whatever their address is."""

    def report(self, loc: Iterable[str | int], what: str) -> None:
        """Note a problem at the line of the innermost key on the way to `loc` that was written."""
        loc = tuple(loc)
        line = next((self.lines[loc[:end]] for end in range(len(loc), -1, -1) if loc[:end] in self.lines), 0)
        self.problems.append(Problem(self.label, line, key_of(loc), what))

    def in_order(self) -> list[str]:
        """The problems as people read them: this file's first, each file's by line, and none twice."""
        ordered = sorted(self.problems, key=lambda problem: (problem.file != self.label, problem.file, problem.line))
        return list(dict.fromkeys(map(str, ordered)))


def key_of(loc: Loc) -> str:
    """Write a place for people.

    >>> key_of(("sources", 0, "url"))
    'sources[0].url'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def read_document(location: str, label: str, allowed: Allowed = ()) -> Document:
    """Read a YAML file from a path or URL.

    Args:
        location: An absolute path or a URL.
        label: What problems call it.
        allowed: Hosts that may be connected to whatever their address is.

    Raises:
        Unreadable: Nothing can be read there, or it is too large or not text.
    """
    document = Document(label, folder_of(location), allowed=allowed)
    text = _decode(_read(location, allowed))
    try:
        document.values, document.lines, problems = read_tree(text)
    except NotYaml as error:
        document.problems.append(Problem(label, error.line, "", error.what))
        return document
    for loc, line, what in problems:
        document.problems.append(Problem(label, line, key_of(loc), what))
    return document


def mapping_document(values: Mapping[str, Any], label: str) -> Document:
    """Take a dictionary as a document; its paths are relative to the current folder."""
    document = Document(label, str(Path.cwd()))
    document.values = _plain(document, (), values)
    return document


def _plain(document: Document, loc: Loc, value: object) -> Any:
    """Copy what JSON can hold, and report the rest."""
    if len(loc) > DEEPEST:
        document.report(loc[:1], f"is nested deeper than {DEEPEST} levels")
    elif isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _plain(document, (*loc, key), item) for key, item in value.items()}
        document.report(loc, "has a key that is not text")
    elif isinstance(value, (list, tuple)):
        return [_plain(document, (*loc, index), item) for index, item in enumerate(value)]
    elif value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    else:
        document.report(loc, f"a value of the type {type(value).__name__} can't stand in a spec")
    return None


def _read(location: str, allowed: Allowed) -> bytes:
    path = local_path(location)
    if path is None:
        return _bounded(_read_url(location, allowed))
    try:
        with Path(path).open("rb") as file:
            return _bounded(file.read(MAX_BYTES + 1))
    except FileNotFoundError:
        raise Unreadable(f"does not exist{_sibling(Path(path))}") from None
    except IsADirectoryError:
        raise Unreadable("is a directory; name the YAML file in it") from None
    except PermissionError:
        raise Unreadable("may not be read by this user") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"can't be read: {getattr(error, 'strerror', None) or error}") from None


def _sibling(path: Path) -> str:
    """Name the file beside it that was probably meant."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    beside = {item.stem: item.name for item in path.parent.glob("*.y*ml")}
    near = get_close_matches(path.stem, beside, n=1)
    return f"; did you mean {beside[near[0]]!r}?" if near else ""


def _read_url(url: str, allowed: Allowed) -> bytes:
    scheme = scheme_of(url)
    if problem := chain_problem(url):
        raise Unreadable(problem)
    if scheme in ("http", "https"):
        return _fetch(url, allowed)
    if scheme not in DOCUMENT_SCHEMES:
        raise Unreadable(f"can't be read: {scheme}:// is none of https, http, {', '.join(DOCUMENT_SCHEMES)}")
    return _read_object(url)


def _fetch(url: str, allowed: Allowed) -> bytes:
    """Ask a web server. A user and password in the URL go to its own origin alone."""
    # Late: most specs are files, and libcurl takes 30 ms to import.
    from prefect_stagegate.http import Client, ForbiddenAddress, Request, environment_proxies, fetch, login_of

    client = Client(allowed, proxies=environment_proxies())
    try:
        request = Request(url, login_of(url), client, limit=MAX_BYTES + 1, timeout=DOCUMENT_SECONDS)
        response = fetch(request)
    except StagegateError as error:
        hint = f". {error.hint}" if isinstance(error, ForbiddenAddress) else ""
        raise Unreadable(f"can't be read: {error.message}{hint}") from error
    if response.status in _GONE:
        raise Unreadable("does not exist")
    if response.status != _OK:
        raise Unreadable(f"can't be read: the server answers {response.status}")
    return bytes(response.body)


def _read_object(url: str) -> bytes:
    import fsspec  # slow to import, and most specs are files

    try:
        with fsspec.open(url, "rb") as file:
            data: bytes = file.read(MAX_BYTES + 1)
            return data
    except FileNotFoundError as error:
        raise Unreadable("does not exist") from error
    except Exception as error:  # each protocol of fsspec raises its own
        told = f"can't be read: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise Unreadable(told.replace(url, without_secrets(url))) from error


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise Unreadable(f"is larger than {MAX_BYTES >> 20} MiB, so it is hardly a spec")
    return data


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}") from None
