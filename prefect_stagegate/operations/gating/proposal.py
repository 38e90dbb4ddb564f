"""What people are asked to approve: the version's size, and how it differs from the version that its target serves."""

from __future__ import annotations

from prefect_stagegate.model import Decision
from prefect_stagegate.operations.gating.version_changes import version_changes
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import Proposal

COUNTING = ("nonempty", "expectations")
"""The checks that count rows. The first counts the rows of all tables of the contract."""


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
