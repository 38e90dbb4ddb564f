"""`transfer`, the third small step: fetch every planned object into the cache, verified."""

from __future__ import annotations

from collections.abc import Sequence

from prefect_stagegate.cache.job_progress import Phase
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.model import FailedObject, PlannedObject, Receipts
from prefect_stagegate.operations.address import SpecLike, read_spec
from prefect_stagegate.operations.staging.recorded_progress import recorded_progress
from prefect_stagegate.operations.staging.sources import open_sources
from prefect_stagegate.operations.staging.stage import transfer_objects
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.failed import show_failed, showing_failed
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.progress import live_progress
from prefect_stagegate.tasks._support.room import watched_room
from prefect_stagegate.tasks._support.running import engine_task, short_name
from prefect_stagegate.units import bytes_text, count_text


@engine_task(lambda parameters: f"transfer {short_name(parameters['spec'])}")
def transfer(
    spec: SpecLike, planned: Sequence[PlannedObject], *, cache: CacheLike = None, catalog: CatalogLike = None
) -> Receipts:
    """Fetch every planned object into the cache.

    Nothing holds the objects between this step and `publish_version`: a garbage collection in between removes them.

    Args:
        spec: A path, URL, dictionary, or a loaded spec.
        planned: The result of `plan_transfer` for the same spec.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        TransferFailed: More objects failed than the spec's `max_failed_objects`; the error has the reason of each.
    """
    loaded, workspace = read_spec(spec), open_places(cache, catalog)
    with (
        showing_failed(loaded.dataset),
        # The lease tells other writers how much space this one has reserved.
        workspace.cache.leases.hold(LeaseKind.WRITER, loaded.dataset, purpose="transfer") as writer,
        watched_room(workspace),
        ending() as cancel,
        workspace.admit(loaded, cancel),
        open_sources(workspace, loaded) as sources,
        # The draft holds the reused blobs while room is made for the others.
        workspace.cache.views.draft() as kept,
        live_progress(f"{loaded.dataset}-stage") as progress,
        recorded_progress(workspace.cache, writer, progress, phase=Phase.FETCHING) as meter,
    ):
        meter.listed(len(planned), sum(item.object.size for item in planned))
        run = transfer_objects(workspace, loaded, sources, planned, writer, kept, progress=meter, cancel=cancel)
        meter.measure(run.stats)
        receipts = Receipts(run)
        receipts.failures = tuple(run.stats.failures)
    show_failed(loaded.dataset, [FailedObject.of(failure) for failure in receipts.failures])
    fetched = sum(receipt.fetched for receipt in receipts)
    objects = count_text(len(receipts), "object")
    run_log().info("%s: %s here; fetched %s", loaded.dataset, objects, bytes_text(fetched))
    return receipts
