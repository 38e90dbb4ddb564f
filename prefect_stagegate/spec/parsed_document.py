"""A spec or suite as it was written: its values, the line of each of them, and what is wrong with them.

A document comes from a file, a URL or a dictionary. Its values are those that JSON knows; its lines serve the problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_stagegate.doors import scheme_of
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.spec.urls import chain_problem, folder_of, is_url, local_path, place, without_secrets
from prefect_stagegate.spec.yamltree import DEEPEST, Loc, NotYaml, read_tree

if TYPE_CHECKING:
    from prefect_stagegate.transport.http import Allowed

ABSENT_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")
"""Names of the exceptions that client libraries raise where they find no credentials."""
MAX_BYTES = 1 << 20
"""The largest spec or suite that is read: 1 MiB."""
DOCUMENT_SECONDS = 30.0
"""Time for one spec or suite to come from a web server."""
DOCUMENT_SCHEMES = ("abfs", "abfss", "az", "ftp", "gcs", "gs", "hdfs", "memory", "s3", "s3a", "sftp", "ssh")
"""The schemes of fsspec's by which a spec or suite may be read, beside http and https."""
_STATUS_OK, _STATUS_GONE = 200, (404, 410)


class UnreadableDocument(Exception):
    """A file that can't be read, with the reason for people."""


@dataclass(frozen=True, slots=True)
class SpecProblem:
    """One thing that is wrong with a document, and its place."""

    file: str
    line: int
    """Counted from 1; 0 when the values came from a dictionary or the whole file is meant."""
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.message) if part)


@dataclass(slots=True)
class ParsedDocument:
    """The values of one file or dictionary, with the lines that they stand in and the problems found so far."""

    label: str
    """What problems call it: the path or address that the user gave."""
    base: str
    """The folder that paths in it are relative to: an absolute path or a URL."""
    values: Any = None
    lines: Mapping[Loc, int] = field(default_factory=dict)
    problems: list[SpecProblem] = field(default_factory=list)
    allowed: Allowed = ()
    """Hosts that files named in it may be read from, whatever their address is."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """The place of each expectation of a table's suite, by the table's name."""
    is_dictionary: bool = False
    """Whether it came as a dictionary, which may be a record of the catalog."""

    def report(self, loc: Iterable[str | int], message: str) -> None:
        """Add a problem at the line of `loc`."""
        self.problems.append(self._problem(tuple(loc), message))

    def place(self, loc: Loc) -> str:
        """File, line and key of `loc` in the loaded spec, for people."""
        match loc:
            case ("contract", "tables", str(table), "suite", "expectations", int(position), *_):
                # The suite may stand in another file, or be a list of them.
                if position < len(places := self.places.get(table, ())):
                    return places[position]
        return str(self._problem(loc, ""))

    def _problem(self, loc: Loc, message: str) -> SpecProblem:
        # A key that is missing has no line: take the line of the innermost key around it that was written.
        line = next((self.lines[loc[:end]] for end in range(len(loc), -1, -1) if loc[:end] in self.lines), 0)
        return SpecProblem(self.label, line, key_of(loc), message)

    def ordered_problems(self) -> list[str]:
        """The problems as text: this file's first, each file's by line, and none twice."""
        ordered = sorted(self.problems, key=lambda problem: (problem.file != self.label, problem.file, problem.line))
        return list(dict.fromkeys(map(str, ordered)))


def key_of(loc: Loc) -> str:
    """Write a place for people.

    >>> key_of(("sources", 0, "url"))
    'sources[0].url'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def read_document(location: str, label: str, allowed: Allowed = ()) -> ParsedDocument:
    """Read a YAML file from a path or URL.

    Args:
        location: An absolute path or a URL.
        label: What problems call it.
        allowed: Hosts that may be connected to whatever their address is.

    Raises:
        UnreadableDocument: Nothing can be read there, or it is too large or not text.
    """
    document = ParsedDocument(label, folder_of(location), allowed=allowed)
    text = _decode(_read(location, allowed))
    try:
        document.values, document.lines, problems = read_tree(text)
    except NotYaml as error:
        # Bad YAML is a problem of the document, so that it is reported at its line.
        document.problems.append(SpecProblem(label, error.line, "", error.message))
        return document
    for loc, line, message in problems:
        document.problems.append(SpecProblem(label, line, key_of(loc), message))
    return document


def read_beside(document: ParsedDocument, name: str) -> ParsedDocument:
    """Read a YAML file that a document names: on this machine, or on the server that the document came from.

    Args:
        document: The spec.
        name: The file's path, relative to the spec, or its URL.

    Raises:
        UnreadableDocument: Nothing can be read there, or it lies on another server.
    """
    location, label = _placed(document, name)
    try:
        return read_document(location, label, document.allowed)
    except UnreadableDocument as error:
        raise UnreadableDocument(f"{label} {error}") from error


def read_text_beside(document: ParsedDocument, name: str) -> str:
    """Read the text of a file that a document names, as `read_beside` does.

    Raises:
        UnreadableDocument: Nothing can be read there, or it lies on another server.
    """
    location, label = _placed(document, name)
    try:
        return _decode(_read(location, document.allowed))
    except UnreadableDocument as error:
        raise UnreadableDocument(f"{label} {error}") from error


def _placed(document: ParsedDocument, name: str) -> tuple[str, str]:
    """Where a file that a document names lies, and what problems call it."""
    location = place(name, document.base)
    # A spec from elsewhere must not make this machine read from any server it names.
    if not _is_beside(location, document.base):
        raise UnreadableDocument("lies on another server than the spec; put the file beside the spec")
    return location, _label(document, name, location)


def _is_beside(location: str, base: str) -> bool:
    """Whether a file lies where the spec came from and the user chose: this machine, or a server."""
    if local_path(location) is not None:
        return local_path(base) is not None
    scheme, _, rest = base.partition("://")
    # A chained URL may begin as the spec's does and lead to another server.
    return bool(rest) and "::" not in location and location.startswith(f"{scheme}://{rest.partition('/')[0]}/")


def _label(document: ParsedDocument, name: str, location: str) -> str:
    """What problems call a file beside a spec: a path that begins as the spec's does, or a URL without secrets."""
    if is_url(location):
        return without_secrets(location)
    folder = document.label.rpartition("/")[0]
    return place(name, folder) if folder else name


def mapping_document(values: Mapping[str, Any], label: str, base: str = "") -> ParsedDocument:
    """Make a document of a dictionary; its paths are relative to `base`, by default the current folder."""
    document = ParsedDocument(label, base or str(Path.cwd()), is_dictionary=True)
    document.values = _plain(document, (), values)
    return document


def _plain(document: ParsedDocument, loc: Loc, value: object) -> Any:
    """Copy the values that JSON can hold, and report the others."""
    # Bounds a value that contains itself. Reported at the outermost key, and so only once.
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
        document.report(loc, f"a value of the type {type(value).__name__} can't be in a spec")
    return None


def _read(location: str, allowed: Allowed) -> bytes:
    path = local_path(location)
    if path is None:
        return _read_url(location, allowed)
    try:
        with Path(path).open("rb") as file:
            # One byte more than is allowed shows that the file is too large.
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableDocument(f"does not exist{_sibling(Path(path))}") from None
    except IsADirectoryError:
        raise UnreadableDocument("is a directory; name the YAML file in it") from None
    except PermissionError:
        raise UnreadableDocument("may not be read by this user") from None
    # ValueError: the path has a NUL, which Python refuses before the system does.
    except (OSError, ValueError) as error:
        raise UnreadableDocument(f"can't be read: {getattr(error, 'strerror', None) or error}") from None


def _sibling(path: Path) -> str:
    """A hint at the file beside a missing one that was probably meant."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    beside = {item.stem: item.name for item in path.parent.glob("*.y*ml")}
    near = get_close_matches(path.stem, beside, n=1)
    return f"; did you mean {beside[near[0]]!r}?" if near else ""


def _read_url(url: str, allowed: Allowed) -> bytes:
    scheme = scheme_of(url)
    if problem := chain_problem(url):
        raise UnreadableDocument(problem)
    if scheme in ("http", "https"):
        return _read_web(url, allowed)
    if scheme not in DOCUMENT_SCHEMES:
        raise UnreadableDocument(f"can't be read: {scheme}:// is none of https, http, {', '.join(DOCUMENT_SCHEMES)}")
    return _read_object(url)


def _read_web(url: str, allowed: Allowed) -> bytes:
    """Read from a web server. A user and password in the URL go to the URL's own origin alone."""
    # Imported here, for most specs are files and libcurl takes 30 ms to import.
    from prefect_stagegate.transport.http import Client, ForbiddenAddress, Request, environment_proxies, fetch, login_of

    client = Client(allowed, proxies=environment_proxies())
    try:
        request = Request(url, login_of(url), client, limit=MAX_BYTES + 1, timeout=DOCUMENT_SECONDS)
        response = fetch(request)
    except StagegateError as error:
        hint = f". {error.hint}" if isinstance(error, ForbiddenAddress) else ""
        raise UnreadableDocument(f"can't be read: {error.message}{hint}") from error
    if response.status in _STATUS_GONE:
        raise UnreadableDocument("does not exist")
    if response.status != _STATUS_OK:
        raise UnreadableDocument(f"can't be read: the server answers {response.status}")
    return bytes(response.body)


def _read_object(url: str) -> bytes:
    import fsspec  # slow to import, and most specs are files

    try:
        with fsspec.open(url, "rb") as file:
            data: bytes = file.read(MAX_BYTES + 1)
            return data
    except FileNotFoundError as error:
        raise UnreadableDocument("does not exist") from error
    except Exception as error:  # each protocol of fsspec raises its own
        message = f"can't be read: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if type(error).__name__ in ABSENT_CREDENTIALS:
            message += ". Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        # Libraries repeat the URL in their errors, with its credentials.
        raise UnreadableDocument(message.replace(url, without_secrets(url))) from error


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise UnreadableDocument(f"is larger than {MAX_BYTES >> 20} MiB, the limit for a spec")
    try:
        # Some editors begin a file with a byte-order mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableDocument(f"is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}") from None
