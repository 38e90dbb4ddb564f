"""Quarantine: rotten blobs, moved aside so that no digest leads to them, each with a record of what is wrong.

    quarantine/<blake3>-<id>            the file as it was; views that are not repaired still link to it
    quarantine/<blake3>-<id>.json       what is wrong with it, since when that is known, and which entries it was

A collection removes the blobs that no view links to any more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prefect_stagegate.cache.blob_verification import Rot, inode_of
from prefect_stagegate.cache.layout import GROUP_DIR, GROUP_FILE, PRIVATE_DIR, SMALL_FILE, Layout, explained
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.durable import read_file, sync_folder, write_file
from prefect_stagegate.model import Entry

RECORD = ".json"
MAX_ENTRIES = 20
"""Entries that a record names at most: one blob, the empty one for example, may be thousands of entries."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One rotten blob."""

    name: str
    """The name of its file in the quarantine."""
    digest: str
    """The digest that its name promised."""
    found: str
    """The digest of its bytes; empty when they can't be read."""
    problem: str
    since: str
    """When the rot was noticed."""
    bytes: int
    entries: tuple[str, ...] = ()
    """Entries of versions that it was, as `dataset@sha256:… path`; at most 20."""


class Quarantine:
    """The rotten blobs of one cache."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def put(self, rot: Rot) -> Quarantined | None:
        """Move a rotten blob aside; None when its name leads to another file, or to none, by now.

        Raises:
            CacheError: The cache can't be changed; the blob stays where it was.
        """
        layout, blob = self._layout, self._layout.blob(rot.digest)
        name = f"{blob.name}-{uuid.uuid4().hex}"
        with explained("move a rotten blob into quarantine", blob):
            layout.quarantine.mkdir(mode=PRIVATE_DIR, exist_ok=True)
            layout.share(layout.quarantine, GROUP_DIR)
            try:
                stat = blob.lstat()
                # Another process may have put a sound blob there since this one was hashed.
                if rot.inode and stat.st_ino != rot.inode:
                    return None
                # From here on no staging reuses it. Its second links, the views' files, stay as they are.
                blob.rename(layout.quarantine / name)
            except FileNotFoundError:
                return None
            quarantined = Quarantined(name, rot.digest, rot.actual, rot.problem, stamp(now()), stat.st_size)
            # A mover that is killed before this leaves a blob without a record, and `_read` makes one up.
            self._record(quarantined)
            # Both folders, so that a power cut neither brings the name back nor loses the file.
            sync_folder(blob.parent)
            sync_folder(layout.quarantine)
        return quarantined

    def add_entry(self, blob: Quarantined, entry: str) -> Quarantined:
        """Add one entry to the record of a quarantined blob.

        Raises:
            CacheError: The cache can't be changed.
        """
        updated = replace(blob, entries=(*blob.entries, entry))
        with explained("record the entries of a rotten blob", self._layout.quarantine):
            self._record(updated)
        return updated

    def all(self) -> list[Quarantined]:
        """The quarantined blobs, the oldest first.

        Raises:
            CacheError: It can't be read.
        """
        with explained("read the quarantine", self._layout.quarantine):
            return sorted(map(self._read, self.files()), key=lambda blob: blob.since)

    def files(self) -> Iterator[Path]:
        """The files of the rotten blobs, without their records."""
        with suppress(FileNotFoundError):  # the folder is made for the first rotten blob
            yield from (path for path in self._layout.quarantine.iterdir() if path.suffix != RECORD)

    def rotten_files(self, view: Path, entries: Iterable[Entry]) -> list[Entry]:
        """The entries whose file in a view is still a link to a rotten blob.

        Raises:
            CacheError: The quarantine can't be read.
        """
        inodes = self.linked()
        return [entry for entry in entries if inode_of(view / entry.path) in inodes] if inodes else []

    def linked(self) -> set[int]:
        """The inodes of rotten blobs that some view may still link to.

        Raises:
            CacheError: The quarantine can't be read.
        """
        with explained("read the quarantine", self._layout.quarantine):
            # A blob with one link is in no view any more.
            return {stat.st_ino for path in self.files() if (stat := path.lstat()).st_nlink > 1}

    def tidy(self) -> None:
        """Remove the records of blobs that are gone."""
        kept = {path.name for path in self.files()}
        with suppress(FileNotFoundError):
            for path in self._layout.quarantine.glob(f"*{RECORD}"):
                if path.stem not in kept:
                    path.unlink(missing_ok=True)

    def _record(self, blob: Quarantined) -> None:
        scratch = self._layout.ingest / f"record-{uuid.uuid4().hex}"
        write_file(scratch, json.dumps(asdict(blob)).encode())
        self._layout.share(scratch, GROUP_FILE)
        scratch.replace(self._layout.quarantine / f"{blob.name}{RECORD}")

    def _read(self, blob: Path) -> Quarantined:
        """A blob's record; a plain one when its mover was killed before it wrote one."""
        try:
            fields = json.loads(read_file(blob.with_name(blob.name + RECORD), SMALL_FILE))
            return Quarantined(**fields | {"entries": tuple(fields["entries"])})
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            name = blob.name
            return Quarantined(name, f"blake3:{name.partition('-')[0]}", "", "the reason is unknown", "", 0)
