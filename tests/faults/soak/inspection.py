"""Looks at nodes and catalog while others work, without the package's code, and says what must never be so.

Everything moves meanwhile: a view may go while it is read, and a ref may move on. So what looks wrong is looked at
again, and counts when it is wrong still.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from blake3 import blake3
from crash.look import Rows, version_of

from soak.site import PILOT, Site
from soak.truth import VERDICT, Rot, problem

AGAIN = 3.0
"""Seconds until what looks wrong is looked at again."""
SLACK = 4 << 20
"""Bytes above a node's limit: a file takes whole blocks, and what is claimed are bytes."""
BLOCK = 512


@dataclass
class Inspection:
    """What was seen so far, so that what may never change is seen to stay."""

    site: Site
    rot: Rot
    manifests: dict[str, Rows] = field(default_factory=dict)
    """`dataset/hex` → rows, of manifests that were found right."""
    logs: dict[Path, str] = field(default_factory=dict)
    """Each entry of a ref's log → SHA-256 of it, hex."""
    views: int = 0

    def all(self) -> Iterator[str]:
        """Look at everything once; gives what is wrong."""
        self.views = 0
        yield from self._refs()
        yield from _again(_orphans, self.site.scratch)
        for cache in sorted(Path(self.site.root).glob("nodes/*/cache")):
            if (cache / "format").exists():
                node = cache.parent.name
                yield from self._views(node, cache)
                yield from _again(_dangling, cache)
                yield from _again(_held_by_nobody, cache)
                yield from self._bounds(node, cache)

    def manifest(self, dataset: str, digest: str) -> Rows | None:
        """The rows of a version, once found to hash to its name; None while the catalog hasn't got it."""
        name = f"{dataset}/{digest}"
        path = self.site.catalog / "datasets" / dataset / "manifests" / f"{digest}.parquet"
        if name not in self.manifests and path.exists():
            table = pq.read_table(path).to_pydict()
            rows = list(zip(table["path"], table["size"], table["digest"], strict=True))
            if version_of(rows) != digest:
                raise ValueError(f"the manifest {path} holds other rows than its name says")
            self.manifests[name] = rows
        return self.manifests.get(name)

    # ── views: whole, by the truth ──────────────────────────────────────────────────────────────────────────────

    def _views(self, node: str, cache: Path) -> Iterator[str]:
        for view in sorted((cache / "views").glob("*/*")):
            problems = list(self._wrong_in(node, view))
            if view.is_dir():  # else a collection took it meanwhile
                yield from problems
                self.views += 1

    def _wrong_in(self, node: str, view: Path) -> Iterator[str]:
        rows = self.manifest(view.parent.name, view.name)
        expected = {path: digest.removeprefix("blake3:") for path, _, digest in rows or ()}
        entries: Rows = []
        with suppress(FileNotFoundError):
            for folder, _, names in os.walk(view):
                for path in (Path(folder, name) for name in names):
                    key = str(path.relative_to(view))
                    with path.open("rb") as file:
                        data, inode = file.read(), os.fstat(file.fileno()).st_ino
                    blob = blake3(data).hexdigest()
                    wrong = problem(key, data)
                    if wrong and self.rot.excuses(node, inode):  # a sound file may have a rotten one's inode by now
                        blob, wrong = expected.get(key, self.rot.inodes[node, inode]), ""
                    if wrong:
                        yield f"{path} {wrong}"
                    entries.append((key, len(data), f"blake3:{blob}"))
            if version_of(entries) != view.name:
                yield f"the view {view} holds {len(entries)} files, which are not what its name says"
            if rows is not None and sorted(rows) != sorted(entries):
                yield f"the view {view} is not what the manifest says"
            return
        # Something went while the view was read: either all of it did, or a file is missing.
        time.sleep(0.2)
        missing = [key for key in expected if not (view / key).exists()]
        if view.is_dir() and missing:
            yield f"{view} lost {missing[:3]}"

    # ── refs: a chain that only grows, and names what was accepted ──────────────────────────────────────────────

    def _refs(self) -> Iterator[str]:
        for folder in sorted((self.site.catalog / "datasets").glob("*/refs/*")):
            entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
            before, withdrawn = "", set[str]()
            for number, path in enumerate(entries, start=1):
                data = path.read_bytes()
                entry = json.loads(data)
                if (entry["seq"], entry["before"]) != (number, before):
                    yield f"{path} does not follow the entry before"
                before = "sha256:" + hashlib.sha256(data).hexdigest()
                if self.logs.setdefault(path, before) != before:
                    yield f"{path} was changed after it was written"
                if folder.name == PILOT:
                    yield from self._accepted(path, entry, withdrawn)
            gone = [path for path in self.logs if path.parent == folder and path not in entries]
            yield from (f"{path} is gone" for path in gone)

    def _accepted(self, path: Path, entry: dict[str, Any], withdrawn: set[str]) -> Iterator[str]:
        digest = entry["digest"]
        rows = self.manifest(path.parts[-4], digest.removeprefix("sha256:"))
        bad = [name for name, size, _ in rows or () if name.endswith(VERDICT) and not size]
        if rows is None:
            yield f"{path} names a version that the catalog hasn't"
        if bad:
            yield f"{path} names a version that its gate must refuse, for {bad}"
        subject = json.dumps(entry["attestation"])
        if digest.removeprefix("sha256:") not in subject or '"PASSED"' not in subject:
            yield f"{path} names a version that its attestation does not let in"
        if digest in withdrawn:
            yield f"{path} names a version that was taken back before"
        if entry["withdrawn"]:
            withdrawn.add(entry["withdrawn"])

    # ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _bounds(self, node: str, cache: Path) -> Iterator[str]:
        limit = self.site.limits.get(node)
        if limit and (used := used_bytes(cache)) > limit + SLACK:
            yield f"{cache} takes {used} bytes, and may take {limit}"


def used_bytes(cache: Path) -> int:
    """Bytes of the volume that blobs and what comes in take; each inode once."""
    taken: dict[int, int] = {}
    for above in ("blobs", "ingest"):
        for folder, _, names in os.walk(cache / above):
            for name in names:
                with suppress(FileNotFoundError):
                    status = Path(folder, name).lstat()
                    taken[status.st_ino] = status.st_blocks * BLOCK
    return sum(taken.values())


def _again(look: Any, folder: Path) -> Iterator[str]:
    """What looks wrong twice, with some time between."""
    if first := set(look(folder)):
        time.sleep(AGAIN)
        yield from sorted(first & set(look(folder)))


def _dangling(cache: Path) -> Iterator[str]:
    """Refs of the node that name a version which is not here."""
    for path in (cache / "refs").glob("*/*"):
        digest = path.read_text().strip().removeprefix("sha256:")
        if not (cache / "views" / path.parent.name / digest).is_dir():
            yield f"the node's ref {path} names {digest}, which has no view"


def _held_by_nobody(cache: Path) -> Iterator[str]:
    """Leases whose lock is held, and whose process is gone."""
    for path in (cache / "leases").iterdir():
        with suppress(FileNotFoundError, ValueError), path.open("rb") as file:
            lease = json.loads(file.read())
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if not is_alive(lease["pid"]):
                    yield f"the lease {path} lives, and its holder {lease['pid']} does not"


def workers_of(parents: Container[int] | None = None) -> list[int]:
    """The worker processes of the stagings of some processes, or of all."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"worker_process" in (entry / "cmdline").read_bytes() and (parents is None or _parent(entry) in parents):
                found.append(int(entry.name))
    return found


def _orphans(scratch: Path) -> Iterator[str]:
    """Worker processes of this soak whose staging is gone."""
    of_soak = f"\0TMPDIR={scratch}\0".encode()
    for pid in workers_of():
        with suppress(OSError):
            parent = _parent(Path(f"/proc/{pid}"))
            ours, theirs = (Path(f"/proc/{process}/environ").read_bytes() for process in (pid, parent))
            if of_soak in ours and of_soak not in theirs:
                yield f"the worker process {pid} lives, and its staging does not"


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    """Whether one of its threads goes on: the first may be a zombie while others still hold what they share."""

    def goes_on(thread: Path) -> bool:
        try:
            return "\nState:\tZ" not in (thread / "status").read_text()
        except OSError:
            return False  # it ended meanwhile

    try:
        return any(map(goes_on, Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return False


def memory(pid: int) -> int:
    """Bytes that are a process's own (RssAnon); 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def descriptors(pid: int) -> int:
    """Files that a process has open; 0 when it is gone."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0
