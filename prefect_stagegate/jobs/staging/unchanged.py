"""Recognizing a listing that did not change since its version was staged here.

A pin names one content, so the same objects under the same pins are the same version. This node notes the digest of a
listing beside the version that was staged from it. When the next listing has the same digest, and the version is
complete here, nothing needs to be planned. The note is disposable: without it everything is planned anew.

The digest is a sum over the objects, so that the order in which a source lists them does not matter.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from prefect_stagegate.cache.layout import explained
from prefect_stagegate.cache.memory import is_racy
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.catalog import RefEntry
from prefect_stagegate.catalog.version_records import read_manifest, staged_spec
from prefect_stagegate.jobs.staging.open_sources import Sources
from prefect_stagegate.model import Pin, Receipt, SourceObject
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.spec import Spec
from prefect_stagegate.workspace import Workspace

MEANING = 2
"""Raise it when staging refuses more listings than before: earlier notes then count no more."""
BATCH = 4096
"""Objects that are written to the temporary file at once."""


@dataclass(slots=True)
class SelectedObject:
    """One listed object that a dataset takes from a source."""

    source: int
    """Position of the source in the spec."""
    object: SourceObject


class ListingDigest:
    """A digest of what the sources of a spec list: positions, keys, sizes and pins, in any order."""

    def __init__(self, spec: Spec, sources: Sources) -> None:
        identities = [[source.identity for source in group.members()] for group in sources.groups]
        self._terms = digest_of([MEANING, spec.canonical(), identities])
        self._sum = 0

    def add(self, source: int, listed: SourceObject) -> None:
        """Add one object of the source at a position of the spec."""
        pin = listed.pin
        line = f"{source}\0{listed.key}\0{listed.size}\0{pin.kind}:{pin.value}\0{pin.strength}"
        digest = hashlib.sha256(line.encode("utf-8", "surrogateescape")).digest()
        self._sum += int.from_bytes(digest, "little")

    def __str__(self) -> str:
        return f"{self._terms} {self._sum:x}"


def spool(listed: Iterable[SelectedObject], digest: ListingDigest, file: IO[bytes]) -> Iterator[SelectedObject]:
    """Read a listing to its end into a file, and give it again, in case it must be planned.

    Each object is added to `digest`; `file` keeps the listing, which may not fit in memory.

    Raises:
        NoSpace: The file's volume is full.
    """
    stream = iter(listed)
    while batch := list(islice(stream, BATCH)):
        for entry in batch:
            digest.add(entry.source, entry.object)
        with explained("keep a listing", tempfile.gettempdir()):
            pickle.dump([_to_row(entry) for entry in batch], file)
    return _reread(file, file.tell())


def _reread(file: IO[bytes], end: int) -> Iterator[SelectedObject]:
    file.seek(0)
    while file.tell() < end:
        yield from (_from_row(*row) for row in pickle.load(file))  # noqa: S301 - this process wrote it


class Unchanged:
    """Recognizes the last listing of a spec's sources, and notes a new one when its version is staged."""

    def __init__(self, workspace: Workspace, spec: Spec, sources: Sources) -> None:
        self._workspace, self._spec = workspace, spec
        self._name = f"listing {spec.dataset}"
        self._begun = time.time()
        self._lasts = all(source.rehash == "never" for source in spec.sources)
        """Whether the listing may be noted: the same listing again will mean the same bytes."""
        self._received = ListingDigest(spec, sources)
        self._mirrored = [bool(group.mirrors) for group in sources.groups]
        self.manifest: Manifest | None = None
        """The manifest of the version whose listing was recognized."""

    def is_noted(self, last: RefEntry) -> bool:
        """Whether the listing of the newest version was noted here; if not, its end need not be waited for."""
        noted = self._workspace.cache.memory.noted(self._name) if self._lasts else None
        return (noted or "").startswith(f"{last.digest} ")

    def recognize(self, last: RefEntry, listing: ListingDigest) -> bool:
        """Whether a listing is that of the newest version, by the same spec, and the version is complete here.

        If so, sets `manifest`.
        """
        workspace, dataset, digest = self._workspace, last.dataset, last.digest
        # Read again: another staging may have noted a newer version since the listing began.
        noted = workspace.cache.memory.noted(self._name)
        if noted == f"{digest} {listing}" and staged_spec(workspace.catalog, dataset, digest) == self._spec.canonical():
            manifest = read_manifest(workspace.catalog, dataset, digest)
            self.manifest = manifest if is_complete(workspace, manifest) else None
        return self.manifest is not None

    def add(self, receipt: Receipt) -> None:
        """Add a receipt of the staging, and find out whether its listing may be noted."""
        # A pin that may stay while the bytes change, or that was not compared with a mirror's bytes, proves nothing the
        # next time.
        if receipt.proof != "manifest" and (self._mirrored[receipt.source] or is_racy(receipt.object, self._begun)):
            self._lasts = False
        self._received.add(receipt.source, receipt.object)

    def note(self, digest: str) -> None:
        """Note that the received objects are all of a version."""
        if self._lasts:
            self._workspace.cache.memory.note(self._name, f"{digest} {self._received}")


def is_complete(workspace: Workspace, manifest: Manifest) -> bool:
    """Whether this node has a version's view and all of its blobs, none of them in quarantine."""
    view = workspace.cache.views.path(manifest.dataset, manifest.digest)
    if view is None or Quarantine(workspace.cache.layout).rotten_files(view, manifest.entries()):
        return False
    holds = workspace.cache.blobs.holds
    return all(holds(entry.digest, entry.size) for entry in manifest.entries())


def _to_row(entry: SelectedObject) -> tuple[Any, ...]:
    listed, pin = entry.object, entry.object.pin
    identity = (entry.source, listed.key, listed.size, pin.kind, pin.value, pin.strength)
    return (*identity, listed.modified, listed.checksums, listed.state, listed.away)


def _from_row(source: int, key: str, size: int, kind: str, value: str, strength: Any, *rest: Any) -> SelectedObject:
    return SelectedObject(source, SourceObject(key, size, Pin(kind, value, strength), *rest))
