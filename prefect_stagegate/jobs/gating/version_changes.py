"""Comparing a version with the one that a target serves, for reports and for people who are asked to approve it."""

from __future__ import annotations

from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Decision
from prefect_stagegate.model.manifest import diff
from prefect_stagegate.show import Proposal, VersionChanges, count_changes

COMPARED = 400_000
"""Files of both versions together up to which they are compared one by one, in about 1.5 s of CPU."""
COUNTING = ("nonempty", "expectations")
"""The checks that count rows. The first counts the rows of all tables of the contract."""


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


def proposal_of(workspace: Workspace, decision: Decision) -> Proposal:
    """Summarize what a waiting decision proposes.

    Raises:
        CatalogError: A manifest can't be read.
    """
    manifest = workspace.catalog.sums(decision.dataset, decision.digest)
    measured = {evidence.check: evidence.measured for evidence in decision.checks}
    rows = next((measured[name].get("rows") for name in COUNTING if name in measured), None)
    head = workspace.catalog.ref(decision.dataset, decision.target)
    changes = version_changes(workspace, decision.dataset, decision.digest, head.digest) if head else None
    return Proposal(manifest.files, manifest.bytes, rows, changes)
