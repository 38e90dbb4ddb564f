"""Reads what lies on disk, without the package's own code, and says what is wrong with it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from blake3 import blake3

HEX = re.compile(r"[0-9a-f]{64}")
LEASE = re.compile(r"[0-9a-f]{32}")
CACHE = {"CACHEDIR.TAG", "format", "blobs", "ingest", "views", "refs", "leases", "trash"} | {
    "quarantine",
    "volumes",
    "index.sqlite",
    "index.sqlite-journal",
}


@dataclass
class Seen:
    """What can be seen in a cache and its catalog."""

    views: set[str] = field(default_factory=set)
    """`dataset/sha256` hex."""
    refs: dict[str, str] = field(default_factory=dict)
    """`node dataset/ref` and `catalog dataset/ref` → the version's hex."""
    pins: set[str] = field(default_factory=set)
    """`dataset/sha256` hex of the pinned versions."""
    problems: list[str] = field(default_factory=list)


def look(cache: Path, catalog: Path, rotten: frozenset[str] = frozenset(), *, blobs: bool = True) -> Seen:
    """Look at everything.

    Args:
        cache: The cache's folder; it may be absent.
        catalog: The catalog's folder; it may be absent.
        rotten: BLAKE3 names of blobs that may be wrong, where they are and where a view has them.
        blobs: Whether blobs that no view has must be right too, which after a power cut they need not.
    """
    seen = Seen()
    try:
        _look(cache, catalog, rotten, seen, blobs=blobs)
    except Exception as error:  # noqa: BLE001 - whatever a record that was cut off makes of its reader
        seen.problems.append(f"what is there can't be read: {error!r}")
    return seen


def _look(cache: Path, catalog: Path, rotten: frozenset[str], seen: Seen, *, blobs: bool) -> None:
    known = dict(_manifests(catalog, seen))
    _refs_of_catalog(catalog, known, seen)
    if cache.is_dir():
        _strangers(cache, seen)
        if blobs:
            _blobs(cache, rotten, seen)
        _views(cache, known, rotten, seen)
        _refs_of_node(cache, known, seen)
        _leases(cache, seen)


def hash_of(path: Path) -> str:
    """BLAKE3 of a file, hex."""
    return str(blake3(path.read_bytes()).hexdigest())


Rows = list[tuple[str, int, str]]


def version_of(rows: Rows) -> str:
    """The version's digest of (path, size, `blake3:<hex>`) rows, hex."""
    lines = sorted((path.encode(), size, digest.encode()) for path, size, digest in rows)
    return hashlib.sha256(b"".join(b"%s\0%d\0%s\n" % line for line in lines)).hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names)


def _manifests(catalog: Path, seen: Seen) -> Iterator[tuple[str, Rows]]:
    """Each manifest in the catalog, `dataset/hex` → rows; its rows must hash to its name, its origins must be there."""
    for path in sorted(catalog.glob("datasets/*/manifests/[!.]*")):
        name = f"{path.parts[-3]}/{path.stem}"
        table = pq.read_table(path).to_pydict()
        rows = list(zip(table["path"], table["size"], table["digest"], strict=True))
        if version_of(rows) != path.stem:
            seen.problems.append(f"the manifest {path} holds other rows than its name says")
        if not (path.parents[1] / "origins" / path.name).is_file():
            seen.problems.append(f"the manifest {path} has no origins")
        yield name, rows


def _refs_of_catalog(catalog: Path, known: dict[str, Rows], seen: Seen) -> None:
    for folder in sorted(catalog.glob("datasets/*/refs/*")):
        before = ""
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for number, path in enumerate(entries, start=1):
            entry = json.loads(path.read_bytes())
            if (path.name, entry["seq"], entry["before"]) != (f"{number:08d}.json", number, before):
                seen.problems.append(f"{path} does not follow the entry before")
            before = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
            dataset, digest = folder.parts[-3], entry["digest"].removeprefix("sha256:")
            if f"{dataset}/{digest}" not in known:
                seen.problems.append(f"{path} names a version that the catalog hasn't")
            if not list((folder.parents[1] / "specs" / digest).glob("[0-9]*.json")):
                seen.problems.append(f"{path} names a version without a spec")
            seen.refs[f"catalog {dataset}/{folder.name}"] = digest


def _strangers(cache: Path, seen: Seen) -> None:
    strangers = {path.name for path in cache.iterdir()} - CACHE
    if strangers:
        seen.problems.append(f"{cache} holds {sorted(strangers)}")
    if (cache / "format").exists() and (cache / "format").read_text() != "stagegate-cache 1\n":
        seen.problems.append("the cache's format is cut off")


def _blobs(cache: Path, rotten: frozenset[str], seen: Seen) -> None:
    for path in _files(cache / "blobs"):
        status = path.lstat()
        if not HEX.fullmatch(path.name) or path.parent.name != path.name[:2] or not stat.S_ISREG(status.st_mode):
            seen.problems.append(f"{path} is no blob")
        elif path.name not in rotten and hash_of(path) != path.name:
            seen.problems.append(f"the blob {path} holds other bytes than its name says")
        if stat.S_IMODE(status.st_mode) != 0o444:
            seen.problems.append(f"the blob {path} has the mode {stat.S_IMODE(status.st_mode):o}")


def _views(cache: Path, known: dict[str, Rows], rotten: frozenset[str], seen: Seen) -> None:
    for view in sorted((cache / "views").glob("*/*/")) if (cache / "views").is_dir() else []:
        name = f"{view.parent.name}/{view.name}"
        seen.views.add(name)
        rows = [_row(view, path, known.get(name, []), rotten) for path in _files(view)]
        if version_of(rows) != view.name:
            seen.problems.append(f"the view {view} holds other files than its name says: {sorted(rows)}")
        if name in known and sorted(known[name]) != sorted(rows):
            seen.problems.append(f"the view {view} is not what the manifest says")
        for path in _files(view):
            if stat.S_IMODE(path.lstat().st_mode) & 0o222:
                seen.problems.append(f"{path} can be written")


def _row(view: Path, path: Path, rows: Rows, rotten: frozenset[str]) -> tuple[str, int, str]:
    name, digest = str(path.relative_to(view)), hash_of(path)
    expected = next((row for row in rows if row[0] == name), None)
    if expected and expected[2].removeprefix("blake3:") in rotten:
        return expected
    return name, path.lstat().st_size, f"blake3:{digest}"


def _refs_of_node(cache: Path, known: dict[str, Rows], seen: Seen) -> None:
    for path in _files(cache / "refs"):
        digest = path.read_text().removeprefix("sha256:").removesuffix("\n")
        name = f"{path.parent.name}/{digest}"
        if not HEX.fullmatch(digest) or name not in seen.views:
            seen.problems.append(f"the node's ref {path} names {digest!r}, which has no view")
        if name not in known:
            seen.problems.append(f"the node's ref {path} names {digest!r}, which the catalog hasn't")
        seen.refs[f"node {path.parent.name}/{path.name}"] = digest


def _leases(cache: Path, seen: Seen) -> None:
    for path in _files(cache / "leases"):
        if not LEASE.fullmatch(path.name):  # the progress of its job
            continue
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                seen.problems.append(f"the lease {path} lives, and its holder does not")
            with suppress(ValueError):  # cut off: none
                lease = json.loads(file.read())
                if lease["kind"] == "pin":
                    seen.pins.add(f"{lease['dataset']}/{lease['digest'].removeprefix('sha256:')}")


def leftovers(cache: Path) -> list[str]:
    """What must be gone after a verification and a collection, long after."""
    leftover = [path for folder in ("ingest", "trash", "leases") for path in _files(cache / folder)]
    return [str(path) for path in leftover if b'"pin"' not in path.read_bytes()]
