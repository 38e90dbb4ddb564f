"""What people are asked to approve: the version's size, and how it differs from the version that its target serves."""

from __future__ import annotations

from prefect_stagegate.manifest import Change as Kind
from prefect_stagegate.manifest import diff
from prefect_stagegate.model import Decision
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import FileTotals, Proposal

COUNTING = ("nonempty", "expectations")
"""The checks that count rows. The first counts the rows of all tables of the contract."""


def proposal_of(workspace: Workspace, decision: Decision) -> Proposal:
    """Summarize what a waiting decision proposes.

    Raises:
        CatalogError: A manifest can't be read.
    """
    manifest = workspace.catalog.manifest(decision.dataset, decision.digest)
    measured = {evidence.check: evidence.measured for evidence in decision.checks}
    rows = next((measured[name].get("rows") for name in COUNTING if name in measured), None)
    head = workspace.catalog.ref(decision.dataset, decision.target)
    if head is None:
        return Proposal(manifest.files, manifest.bytes, rows, "")
    counts = dict.fromkeys(Kind, FileTotals())
    for difference in diff(workspace.catalog.manifest(decision.dataset, head.digest).entries(), manifest.entries()):
        # A removed file has only its old entry.
        entry = difference.new or difference.old
        count = counts[difference.change]
        counts[difference.change] = FileTotals(count.files + 1, count.bytes + (entry.size if entry else 0))
    return Proposal(
        manifest.files,
        manifest.bytes,
        rows,
        head.digest,
        added=counts[Kind.ADDED],
        removed=counts[Kind.REMOVED],
        changed=counts[Kind.CHANGED],
    )
