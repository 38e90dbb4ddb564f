"""Records an approval without its checks, and plans a check without running it."""

from __future__ import annotations

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.gate_records import put_answer
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.gate.gate import PlannedCheck
from prefect_stagegate.jobs.gating.check import preview_version, resolve_for_gate
from prefect_stagegate.model import Address, Approval, ApprovalRequest, Identity
from prefect_stagegate.workspace import Workspace


def put_approval(catalog: Catalog, request: ApprovalRequest, who: Identity, *, approved: bool, reason: str) -> Approval:
    """Add an answer to a request, whether it may count or not."""
    return put_answer(catalog, request, Approval(request.id, who, approved, reason, stamp(now())))


def preview_check(workspace: Workspace, address: Address, gate: str) -> tuple[PlannedCheck, ...]:
    """What a check of a version would run, and which evidence it would use again."""
    return preview_version(workspace, *resolve_for_gate(workspace, address, gate))
