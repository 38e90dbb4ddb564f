"""`promote_dataset`: move a target's ref to a version that its gate accepted."""

from __future__ import annotations

from prefect.artifacts import MarkdownArtifact

from prefect_stagegate.model import Address, Promotion
from prefect_stagegate.operations.gating.promote import promote
from prefect_stagegate.report import moved_page
from prefect_stagegate.tasks._support.events import move_event
from prefect_stagegate.tasks._support.notify import announce, attach, run_log
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.running import async_twin, engine_task, short_name


@engine_task(lambda parameters: f"promote {short_name(parameters['dataset'])} to {parameters['to']}")
def promote_dataset(dataset: str, to: str, *, cache: CacheLike = None, catalog: CatalogLike = None) -> Promotion:
    """Move a target's ref to exactly the version that its gate accepted under the current policy.

    A summary of the promotion replaces the summary of the gate's decision at the run.

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
    moved = promote(open_places(cache, catalog), Address.parse(dataset), to)
    ref = f"{moved.dataset}@{moved.ref}"
    key, about = f"{moved.dataset}-{moved.ref}-summary", f"{ref} names {moved.digest}"
    # Also for a ref that stays: the summary of the gate's decision at the run must give way.
    attach(MarkdownArtifact(key=key, markdown=moved_page(moved), description=about))
    if moved.previous == moved.digest:
        run_log().info("%s names %s already", ref, moved.digest)
        return moved
    run_log().info("%s now names %s (before: %s)", ref, moved.digest, moved.previous or "nothing")
    announce(move_event(moved))
    return moved


apromote_dataset = async_twin(promote_dataset)
