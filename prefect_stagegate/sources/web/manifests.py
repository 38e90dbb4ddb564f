"""Manifests: files that list the objects of a web source, some of them with checksums.

    checksums   lines as `sha256sum`, `md5sum`, … write them, also with `--tag`
    croissant   a dataset's description in Croissant (https://docs.mlcommons.org/croissant/docs/croissant-spec.html)
    list        one URL or path a line; lines that begin with # are left out

Pure: no I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from prefect_stagegate.errors import SourceError
from prefect_stagegate.transport.http.request_policy import MAX_DOCUMENT

ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
"""The algorithm of a digest, by the number of its hex digits."""
_LINE = re.compile(r"(\\?)([0-9a-fA-F]{32,128}) [ *](.+)")
_TAGGED = re.compile(r"(\\?)[A-Z0-9-]+ \((.+)\) = ([0-9a-fA-F]{32,128})")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One object in a manifest."""

    key: str
    url: str
    checksums: tuple[tuple[str, str], ...] = ()


def checksums(text: str, base: str) -> Iterator[ManifestEntry]:
    """The entries of a file of checksums. Its paths are relative to it.

    >>> [entry.url for entry in checksums("d41d8cd98f00b204e9800998ecf8427e  ./a b.bin", "https://x.org/data/MD5SUMS")]
    ['https://x.org/data/a%20b.bin']
    """
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if plain := _LINE.fullmatch(line):
            escaped, digest, name = plain.groups()
        elif tagged := _TAGGED.fullmatch(line):
            escaped, name, digest = tagged.groups()
        else:
            raise SourceError(f"Line {number} of the manifest is no checksum with a name", source=base)
        if (algorithm := ALGORITHMS.get(len(digest))) is None:
            raise SourceError(f"Line {number} of the manifest has a digest of no known kind", source=base)
        # A backslash before the line means that the name is escaped (GNU coreutils).
        if escaped:
            name = re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match[0]], name)
        key = name.removeprefix("./")
        yield ManifestEntry(
            key, urljoin(base, "./" + quote(key, errors="surrogateescape")), ((algorithm, digest.lower()),)
        )


def addresses(text: str, base: str) -> Iterator[ManifestEntry]:
    """The entries of a plain list. Paths are not percent-encoded; URLs are."""
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            url = line if "://" in line else urljoin(base, "./" + quote(line.removeprefix("./")))
            yield ManifestEntry(_key(url, base), url)


def croissant(text: str, base: str) -> Iterator[ManifestEntry]:
    """The files of a Croissant description. Files inside its archives are left out."""
    if len(text) > MAX_DOCUMENT:
        raise SourceError(f"The description has more than {MAX_DOCUMENT >> 20} MiB", source=base)
    try:
        files = json.loads(text).get("distribution", [])
    except (ValueError, AttributeError, RecursionError) as error:
        raise SourceError("The manifest is no Croissant description", source=base) from error
    for file in files if isinstance(files, list) else [files]:
        if _is_file(file):
            url = urljoin(base, str(file["contentUrl"]))
            sums = tuple((name, str(file[name]).lower()) for name in ("sha256", "md5") if file.get(name))
            yield ManifestEntry(_key(url, base), url, sums)


MANIFESTS: dict[str, Callable[[str, str], Iterator[ManifestEntry]]] = {
    "checksums": checksums,
    "croissant": croissant,
    "list": addresses,
}
"""The parser of each kind: it gets the manifest's text, and its address, to which paths are relative."""


def _is_file(resource: Any) -> bool:
    kinds = resource.get("@type", "") if isinstance(resource, dict) else ""
    names = kinds if isinstance(kinds, str) else " ".join(map(str, kinds))
    return "FileObject" in names and bool(resource.get("contentUrl")) and not resource.get("containedIn")


def _key(url: str, base: str) -> str:
    """The path below the manifest's folder; for a file elsewhere, its name."""
    path, folder = urlsplit(url).path, urlsplit(urljoin(base, ".")).path
    here = urlsplit(url)[:2] == urlsplit(base)[:2] and path.startswith(folder)
    return unquote(path.removeprefix(folder) if here else path.rpartition("/")[2])
