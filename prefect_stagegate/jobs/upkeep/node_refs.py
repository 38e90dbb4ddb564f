"""This node's copies of refs. A copy moves after the node's own view is complete, and follows the catalog."""

from __future__ import annotations

import logging

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.errors import CacheError, CatalogError
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.model import Promotion, Version
from prefect_stagegate.workspace import Workspace

log = logging.getLogger(__name__)


def point(workspace: Workspace, dataset: str, ref: str, digest: str, staged: Version | None = None) -> None:
    """Make the node's copy of a ref name a version, if the version is here.

    Ends when the copy names what the catalog's ref names, or the catalog's version isn't here. `staged` tells observers
    the facts of a version that the catalog has only just got.

    Raises:
        CacheError: The copy can't be written.
    """
    with step(workspace, "point", dataset, is_step=False, result=staged) as job:
        while copied_digest(workspace, dataset, ref) != digest and workspace.cache.views.path(dataset, digest):
            # Under a lease, so that no collection takes the view between the look and the move.
            with workspace.cache.leases.hold(LeaseKind.READER, dataset, digest, f"move {ref}"):
                if workspace.cache.views.path(dataset, digest) is None:
                    break
                workspace.cache.refs.put(dataset, ref, digest)
                job.note(digest=digest)
            # Others may have moved the catalog's ref since the caller read it, and this copy before the caller did.
            head = workspace.catalog.ref(dataset, ref)
            digest = head.digest if head else digest


def copied_digest(workspace: Workspace, dataset: str, ref: str) -> str | None:
    """The digest that the node's copy names; None for a damaged or suspended one, too: it will be replaced."""
    try:
        return workspace.cache.refs.get(dataset, ref)
    except CatalogError:
        return None


def follow(workspace: Workspace, moved: Promotion) -> None:
    """Move the node's copy after the catalog's ref moved. A failure is logged: the catalog's move stands."""
    try:
        point(workspace, moved.dataset, moved.ref, moved.digest)
    except CacheError as error:
        log.warning("%s@%s moved in the catalog, but this node's copy did not: %s", moved.dataset, moved.ref, error)
