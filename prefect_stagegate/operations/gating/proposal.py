"""What a waiting decision proposes: the version's size, and how it differs from what its target serves."""

from __future__ import annotations

from prefect_stagegate.manifest import Change as Kind
from prefect_stagegate.manifest import diff
from prefect_stagegate.model import Decision
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import FileTotals, Proposal

COUNTING = ("nonempty", "expectations")
"""The checks that count the rows of the contract's tables, the one that counts all of them first."""


def proposal_of(workspace: Workspace, decision: Decision) -> Proposal:
    """What people are asked to approve.

    Raises:
        CatalogError: A manifest can't be read.
    """
    manifest = workspace.catalog.manifest(decision.dataset, decision.digest)
    measured = {one.check: one.measured for one in decision.checks}
    rows = next((measured[name].get("rows") for name in COUNTING if name in measured), None)
    head = workspace.catalog.ref(decision.dataset, decision.target)
    if head is None:
        return Proposal(manifest.files, manifest.bytes, rows, "")
    counts = dict.fromkeys(Kind, FileTotals())
    for one in diff(workspace.catalog.manifest(decision.dataset, head.digest).entries(), manifest.entries()):
        entry = one.new or one.old
        known = counts[one.change]
        counts[one.change] = FileTotals(known.files + 1, known.bytes + (entry.size if entry else 0))
    return Proposal(
        manifest.files,
        manifest.bytes,
        rows,
        head.digest,
        added=counts[Kind.ADDED],
        removed=counts[Kind.REMOVED],
        changed=counts[Kind.CHANGED],
    )
