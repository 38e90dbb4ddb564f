"""`promote_dataset`: move a target's ref to a version that its gate accepted."""

from __future__ import annotations

from prefect.artifacts import MarkdownArtifact

from prefect_stagegate.model import Address, Promotion
from prefect_stagegate.operations.gating.promote import promote
from prefect_stagegate.report import moved_page
from prefect_stagegate.tasks._support.events import move_event
from prefect_stagegate.tasks._support.notify import announce, attach, run_log
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.running import async_twin, engine_task, spoken


@engine_task(lambda parameters: f"promote {spoken(parameters['dataset'])} to {parameters['to']}")
def promote_dataset(dataset: str, to: str, *, cache: CacheLike = None, catalog: CatalogLike = None) -> Promotion:
    """Move the ref of a target to exactly the version that its gate accepted under the policy that is current now.

    The summary that the gate's decision showed at the run gives way to one that says what the ref names.

    Args:
        dataset: `nycflights`, `nycflights@pilot` or `nycflights@sha256:…`. Without a ref: the version that the gate
            below accepted, else `latest`.
        to: The target.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        GateFailed: The gate refused the version, judged another policy, or its acceptance expired.
        WaitingForApproval: Only an approval is missing.
        RefConflict: Somebody else moved the ref meanwhile; nothing was changed.
    """
    moved = promote(open_places(cache, catalog), Address.parse(dataset), to)
    about = f"{moved.dataset}@{moved.ref} names {moved.digest}"
    attach(MarkdownArtifact(key=f"{moved.dataset}-{moved.ref}-summary", markdown=moved_page(moved), description=about))
    if moved.previous == moved.digest:
        run_log().info("%s@%s names %s already", moved.dataset, moved.ref, moved.digest)
        return moved
    run_log().info(
        "%s@%s now names %s (before: %s)", moved.dataset, moved.ref, moved.digest, moved.previous or "nothing"
    )
    announce(move_event(moved))
    return moved


apromote_dataset = async_twin(promote_dataset)
