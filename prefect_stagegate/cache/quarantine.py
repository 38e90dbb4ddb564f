"""Rotten blobs, moved aside: nobody finds them by their digest any more, and why they are here stands beside them.

    quarantine/<blake3>-<id>            the file as it was; views that are not repaired still link to it
    quarantine/<blake3>-<id>.json       what is wrong with it, since when that is known, and which entries it was

A collection takes what no view links to any more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prefect_stagegate.cache.layout import GROUP_DIR, GROUP_FILE, PRIVATE_DIR, Layout, explained
from prefect_stagegate.cache.verify import Rot, inode_of
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.durable import read_file, sync_folder, write_file
from prefect_stagegate.model import Entry

RECORD = ".json"
MOST = 20
"""Entries that a record needs to name; the empty file, for example, may be thousands."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One rotten blob."""

    name: str
    """Of its file in the quarantine."""
    digest: str
    """What its name said."""
    found: str
    """What its bytes hash to; empty when they can't be read."""
    problem: str
    since: str
    """When it was found."""
    bytes: int
    entries: tuple[str, ...] = ()
    """Entries that it was, `dataset@sha256:… path`; at most 20."""


class Quarantine:
    """The rotten blobs of one cache."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def put(self, rot: Rot) -> Quarantined | None:
        """Move a rotten blob aside; None when another file, or none, has its name by now.

        Raises:
            CacheError: The cache can't be changed; the blob is where it was.
        """
        layout, blob = self._layout, self._layout.blob(rot.digest)
        name = f"{blob.name}-{uuid.uuid4().hex}"
        with explained("move a rotten blob aside", blob):
            layout.quarantine.mkdir(mode=PRIVATE_DIR, exist_ok=True)
            layout.share(layout.quarantine, GROUP_DIR)
            try:
                found = blob.lstat()
                if rot.inode and found.st_ino != rot.inode:
                    return None
                blob.rename(layout.quarantine / name)
            except FileNotFoundError:
                return None
            one = Quarantined(name, rot.digest, rot.found, rot.problem, stamp(now()), found.st_size)
            self._record(one)
            sync_folder(blob.parent)
            sync_folder(layout.quarantine)
        return one

    def name(self, one: Quarantined, entry: str) -> Quarantined:
        """Write down one more entry that a blob was.

        Raises:
            CacheError: The cache can't be changed.
        """
        named = replace(one, entries=(*one.entries, entry))
        with explained("write down what is rotten", self._layout.quarantine):
            self._record(named)
        return named

    def all(self) -> list[Quarantined]:
        """What is in quarantine, the oldest first.

        Raises:
            CacheError: It can't be read.
        """
        with explained("read the quarantine", self._layout.quarantine):
            return sorted(map(self._read, self.files()), key=lambda one: one.since)

    def files(self) -> Iterator[Path]:
        """The rotten blobs themselves."""
        with suppress(FileNotFoundError):  # nothing was ever rotten
            yield from (path for path in self._layout.quarantine.iterdir() if path.suffix != RECORD)

    def rotten_files(self, view: Path, entries: Iterable[Entry]) -> list[Entry]:
        """The entries whose file in a view still is a rotten blob.

        Raises:
            CacheError: The quarantine can't be read.
        """
        with explained("read the quarantine", self._layout.quarantine):
            inodes = {found.st_ino for path in self.files() if (found := path.lstat()).st_nlink > 1}
        return [entry for entry in entries if inode_of(view / entry.path) in inodes] if inodes else []

    def tidy(self) -> None:
        """Remove the records of blobs that are gone."""
        kept = {path.name for path in self.files()}
        with suppress(FileNotFoundError):
            for path in self._layout.quarantine.glob(f"*{RECORD}"):
                if path.stem not in kept:
                    path.unlink(missing_ok=True)

    def _record(self, one: Quarantined) -> None:
        scratch = self._layout.ingest / f"record-{uuid.uuid4().hex}"
        write_file(scratch, json.dumps(asdict(one)).encode())
        self._layout.share(scratch, GROUP_FILE)
        scratch.replace(self._layout.quarantine / f"{one.name}{RECORD}")

    def _read(self, blob: Path) -> Quarantined:
        """A record; a blob whose mover was killed before it wrote one has a plain one."""
        try:
            fields = json.loads(read_file(blob.with_name(blob.name + RECORD)))
            return Quarantined(**fields | {"entries": tuple(fields["entries"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
            name = blob.name
            return Quarantined(name, f"blake3:{name.partition('-')[0]}", "", "why is not known", "", 0)
