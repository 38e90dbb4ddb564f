"""The digests of a version's files by the algorithms of other tools."""

from __future__ import annotations

from collections.abc import Iterator

from prefect_stagegate.cache.checksums import checksums
from prefect_stagegate.cache.verify import Pace
from prefect_stagegate.jobs.read import keep_dataset
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.manifest import Manifest
from prefect_stagegate.model import Address

OWN = "blake3"
"""The algorithm of manifests, which costs no reading."""


def file_digests(workspace: Workspace, manifest: Manifest, algorithm: str, pace: Pace) -> Iterator[tuple[str, str]]:
    """The path and the digest in hex of each of a version's files, sorted by path.

    Args:
        workspace: Cache and catalog.
        manifest: The version's.
        algorithm: `blake3`, or a name that hashlib knows. Only for the latter this node's copy is read.
        pace: Bounds the reading.

    Raises:
        UnknownRef: The files are to be read, and this node lacks the version.
        CacheError: A file can't be read, or its bytes are not the manifest's.
    """
    if algorithm == OWN:
        yield from ((entry.path, entry.digest.removeprefix(f"{OWN}:")) for entry in manifest.entries())
        return
    with keep_dataset(workspace.cache, Address(manifest.dataset, manifest.digest), "signature") as held:
        yield from checksums(held.path, manifest.entries(), algorithm, pace)
