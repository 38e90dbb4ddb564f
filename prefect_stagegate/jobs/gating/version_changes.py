"""Comparing a version with the one that a target serves."""

from __future__ import annotations

from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model.manifest import diff
from prefect_stagegate.show import VersionChanges, count_changes

COMPARED = 400_000
"""Files of both versions together up to which they are compared one by one, in about 1.5 s of CPU."""


def version_changes(workspace: Workspace, dataset: str, digest: str, serves: str) -> VersionChanges | None:
    """How a version differs from the one that a target serves; None when it serves none, or this one.

    Raises:
        CatalogError: A manifest can't be read.
    """
    if serves in ("", digest):
        return None
    new, old = (workspace.catalog.sums(dataset, each) for each in (digest, serves))
    is_compared = new.files + old.files <= COMPARED
    changes = VersionChanges(serves, new.files, old.files, new.bytes, old.bytes, is_compared=is_compared)
    if not is_compared:
        return changes
    manifests = [workspace.catalog.manifest(dataset, each) for each in (serves, digest)]
    return count_changes(changes, diff(*(manifest.entries() for manifest in manifests)))
