"""`promote_dataset`: move a target's ref to a version that its gate accepted."""

from __future__ import annotations

from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.model import Address, Promotion
from prefect_stagegate.show import Report, promotion_document
from prefect_stagegate.tasks._support.decision_states import decision_key
from prefect_stagegate.tasks._support.notify import announce, attach_document, run_log, unfailing
from prefect_stagegate.tasks._support.running import (
    CacheLike,
    CatalogLike,
    async_twin,
    engine_task,
    open_places,
    short_name,
)
from prefect_stagegate.tasks._support.version_events import move_event
from prefect_stagegate.workspace import Workspace


@engine_task(lambda parameters: f"promote {short_name(parameters['dataset'])} to {parameters['to']}")
def promote_dataset(dataset: str, to: str, *, cache: CacheLike = None, catalog: CatalogLike = None) -> Promotion:
    """Move a target's ref to exactly the version that its gate accepted under the current policy.

    At the run, the promotion replaces the gate's decision, whose report is below it.

    Args:
        dataset: `nycflights`, `nycflights@pilot` or `nycflights@sha256:…`. Without a ref: the version that the gate
            below accepted, else `latest`.
        to: The target.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        GateFailed: The gate refused the version or judged it by another policy, or its acceptance expired.
        WaitingForApproval: Only an approval is missing.
        RefConflict: Somebody else moved the ref meanwhile; nothing was changed.
    """
    workspace = open_places(cache, catalog)
    moved = promote(workspace, Address.parse(dataset), to)
    ref = f"{moved.dataset}@{moved.ref}"
    # Also for a ref that stays: the gate's decision at the run, which says who promotes, must give way.
    _show(workspace, moved)
    if moved.previous == moved.digest:
        run_log().info("%s names %s already", ref, moved.digest)
        return moved
    run_log().info("%s now names %s (before: %s)", ref, moved.digest, moved.previous or "nothing")
    announce(move_event(moved))
    return moved


def _show(workspace: Workspace, moved: Promotion) -> None:
    """Show the promotion at the run, with the report of the decision that allowed it."""
    report: Report | None = None
    with unfailing("show the decision that allowed the promotion"):
        entry = workspace.catalog.ref(moved.dataset, moved.ref)
        report = report_of(workspace, decision_of(entry.attestation)) if entry else None
    key, about = decision_key(moved.dataset, moved.ref), f"{moved.dataset}@{moved.ref} names {moved.digest}"
    attach_document(key, promotion_document(moved, report), about)


apromote_dataset = async_twin(promote_dataset)
