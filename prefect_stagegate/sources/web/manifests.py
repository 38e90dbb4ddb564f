"""Files that name the objects of a web source, with their checksums where they have some.

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

ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
"""By the number of a digest's hex digits."""
_LINE = re.compile(r"(\\?)([0-9a-fA-F]{32,128}) [ *](.+)")
_TAGGED = re.compile(r"(\\?)[A-Z0-9-]+ \((.+)\) = ([0-9a-fA-F]{32,128})")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


@dataclass(frozen=True, slots=True)
class Named:
    """One object that a manifest names."""

    key: str
    url: str
    checksums: tuple[tuple[str, str], ...] = ()


def checksums(text: str, base: str) -> Iterator[Named]:
    """What a file of checksums names; paths are relative to it.

    >>> [one.url for one in checksums("d41d8cd98f00b204e9800998ecf8427e  ./a b.bin", "https://x.org/data/MD5SUMS")]
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
        if escaped:
            name = re.sub(r"\\[\\nr]", lambda found: _ESCAPES[found[0]], name)
        key = name.removeprefix("./")
        yield Named(key, urljoin(base, "./" + quote(key, errors="surrogateescape")), ((algorithm, digest.lower()),))


def addresses(text: str, base: str) -> Iterator[Named]:
    """What a plain list names. Paths are taken as they stand; URLs are URLs."""
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            url = line if "://" in line else urljoin(base, "./" + quote(line.removeprefix("./")))
            yield Named(_key(url, base), url)


def croissant(text: str, base: str) -> Iterator[Named]:
    """The files of a Croissant description; what lies in an archive of it is left there."""
    try:
        described = json.loads(text)
        files = described.get("distribution", [])
    except (ValueError, AttributeError) as error:
        raise SourceError("The manifest is no Croissant description", source=base) from error
    for one in files if isinstance(files, list) else [files]:
        if _is_file(one):
            url = urljoin(base, str(one["contentUrl"]))
            sums = tuple((name, str(one[name]).lower()) for name in ("sha256", "md5") if one.get(name))
            yield Named(_key(url, base), url, sums)


MANIFESTS: dict[str, Callable[[str, str], Iterator[Named]]] = {
    "checksums": checksums,
    "croissant": croissant,
    "list": addresses,
}
"""How each kind is read: its text and its address, which paths are relative to."""


def _is_file(one: Any) -> bool:
    kinds = one.get("@type", "") if isinstance(one, dict) else ""
    named = kinds if isinstance(kinds, str) else " ".join(map(str, kinds))
    return "FileObject" in named and bool(one.get("contentUrl")) and not one.get("containedIn")


def _key(url: str, base: str) -> str:
    """The path below the manifest's folder; of a file elsewhere, its name."""
    path, folder = urlsplit(url).path, urlsplit(urljoin(base, ".")).path
    here = urlsplit(url)[:2] == urlsplit(base)[:2] and path.startswith(folder)
    return unquote(path.removeprefix(folder) if here else path.rpartition("/")[2])
