"""A node's part in staging a fleet: hold one version and prove it, and later move the node's copy of a ref to it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from threading import Event

from prefect_stagegate.cache.blob_verification import Pace, extra_files, file_problem, inode_of
from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.errors import CacheError
from prefect_stagegate.jobs.read import keep_dataset
from prefect_stagegate.jobs.runner import point
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Address, Entry
from prefect_stagegate.model.manifest import Seal, seal
from prefect_stagegate.plugins.fleet.barrier import NodeOutcome, NodeReport
from prefect_stagegate.plugins.fleet.members import require_committed
from prefect_stagegate.plugins.fleet.node_readiness import require_on_node
from prefect_stagegate.plugins.fleet.peers.peer_search import announced
from prefect_stagegate.transport.transfer import Progress
from prefect_stagegate.workspace import Workspace


class Proof(StrEnum):
    """What a node does to prove that it holds a version."""

    HASH = "hash"
    """Read each of its bytes from the disk and hash it. A rotten file is fetched again."""
    COUNT = "count"
    """Look at each file's size, and that it is a link to a blob, whose bytes were hashed when they came."""


def hold_version(
    workspace: Workspace,
    version: Address,
    *,
    proof: Proof = Proof.HASH,
    fleet: bool = False,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> NodeReport:
    """Bring a version to this node, and compute its digest from what lies on the disk. No ref moves.

    Args:
        workspace: Cache and catalog.
        version: The version, by its digest.
        proof: How much of the bytes is read again.
        fleet: Whether the catalog lists nodes that fetch the same version now.
        progress: Called as the transfer goes on, from several threads.
        cancel: Set it to stop in time; fetched bytes stay for the next run.

    Raises:
        StagegateError: The version isn't complete here.
        CacheError: A file isn't the manifest's.
    """
    begun = time.monotonic()
    peers = [member.name for member in announced(workspace, version.dataset, version.digest)] if fleet else ()
    staged = stage(workspace, version, peers=peers, progress=progress, cancel=cancel)
    hashed = 0
    if proof is Proof.HASH:
        hashed = verify(workspace, version, repair=True, cancel=cancel).bytes
    counted, read = _count(workspace, version, cancel)
    return NodeReport(
        workspace.settings.node,
        NodeOutcome.READY,
        counted.digest,
        counted.files,
        counted.bytes,
        hashed + read,
        staged.bytes_fetched,
        round(time.monotonic() - begun, 2),
    )


def _count(workspace: Workspace, version: Address, cancel: Event | None) -> tuple[Seal, int]:
    """Count a version's files on the disk.

    Returns:
        Digest and totals of what lies there, and the bytes of files that were hashed, since they are no links to blobs.

    Raises:
        CacheError: A file isn't the manifest's.
    """
    pace = Pace(workspace.settings.verify_rate, cancel)
    with keep_dataset(workspace.cache, version, "count") as held:
        manifest = read_manifest(workspace.catalog, held.dataset, held.digest)
        counted = seal(_files(workspace, version, held.path, manifest.entries(), pace))
        extra = extra_files(held.path, manifest)
    if extra:
        raise CacheError(
            f"{version} has a file on {workspace.settings.node} that is none of its own: {held.path / extra[0]}",
            hint=f"`stagegate verify {version} --repair` on the node removes it.",
            dataset=version.dataset,
        )
    return counted, pace.bytes


def _files(workspace: Workspace, version: Address, view: Path, entries: Iterable[Entry], pace: Pace) -> Iterator[Entry]:
    """The entries whose file is on the disk: a link to the entry's blob of the entry's size, or the entry's bytes."""
    layout = workspace.cache.layout
    for entry in entries:
        path = view / entry.path
        inode = inode_of(path)
        is_link = inode and inode == inode_of(layout.blob_path(entry.digest))
        if not (is_link and path.lstat().st_size == entry.size) and (problem := file_problem(path, entry, pace)):
            raise CacheError(
                f"{entry.path} of {version} is damaged on {workspace.settings.node}: {problem}",
                hint=f"`stagegate verify {version} --repair` on the node fetches it again.",
                dataset=version.dataset,
            )
        yield entry


def flip_ref(workspace: Workspace, dataset: str, ref: str, digest: str) -> NodeReport:
    """Make this node's copy of a ref name a version that lies here. Doing it twice changes nothing.

    Raises:
        NotReady: The version isn't here, rotted here or was withdrawn, or the catalog's ref names another one by now.
        CacheError: The copy can't be written.
    """
    begun = time.monotonic()
    require_committed(workspace, dataset, ref, digest)
    # Before the move: readers follow the copy at once.
    require_on_node(workspace, Address(dataset, digest))
    point(workspace, dataset, ref, digest)
    # The copy moves on where the catalog's ref moved meanwhile.
    require_committed(workspace, dataset, ref, digest)
    require_on_node(workspace, Address(dataset, ref))
    took = round(time.monotonic() - begun, 2)
    return NodeReport(workspace.settings.node, NodeOutcome.READY, digest, seconds=took, flipped=True)
