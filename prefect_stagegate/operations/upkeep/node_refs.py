"""This node's copies of refs: they move after the node's own view is complete, and follow the catalog's order."""

from __future__ import annotations

import logging

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.errors import CacheError, CorruptRecord
from prefect_stagegate.model import Promotion
from prefect_stagegate.operations.workspace import Workspace

log = logging.getLogger(__name__)


def point(workspace: Workspace, dataset: str, ref: str, digest: str) -> None:
    """Make the node's copy of a ref name a version, if that lies here.

    Somebody may have moved the catalog's ref since the caller saw it there, and this node's copy before the caller
    does: so the catalog is asked again after the copy moved, until the two agree or the catalog's version isn't here.

    Raises:
        CacheError: The copy can't be written.
    """
    while _named(workspace, dataset, ref) != digest:
        with workspace.cache.leases.hold(LeaseKind.READER, dataset, digest, f"move {ref}"):
            if workspace.cache.views.path(dataset, digest) is None:
                return
            workspace.cache.refs.put(dataset, ref, digest)
        head = workspace.catalog.ref(dataset, ref)
        digest = head.digest if head else digest


def _named(workspace: Workspace, dataset: str, ref: str) -> str | None:
    """What the node's copy names; None when that can't be read, since the catalog knows what it should name."""
    try:
        return workspace.cache.refs.get(dataset, ref)
    except CorruptRecord:
        return None


def follow(workspace: Workspace, moved: Promotion) -> None:
    """Let the node's copy follow a move that the catalog recorded, and which stands whatever this node can write."""
    try:
        point(workspace, moved.dataset, moved.ref, moved.digest)
    except CacheError as error:
        log.warning("%s@%s moved in the catalog, and this node's copy did not: %s", moved.dataset, moved.ref, error)
