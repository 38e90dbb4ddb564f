"""`stage_dataset`: make a version from a spec's sources, or fetch an existing version to this node."""

from __future__ import annotations

from collections.abc import Collection

from prefect_stagegate.jobs.address import SpecLike, parse
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Version
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import (
    announce,
    announce_version,
    in_a_run,
    show_failed,
    showing_failed,
    unfailing,
    watched_room,
)
from prefect_stagegate.tasks._support.run_progress import live_progress
from prefect_stagegate.tasks._support.running import (
    CacheLike,
    CatalogLike,
    async_twin,
    engine_task,
    open_places,
    short_name,
)
from prefect_stagegate.tasks._support.version_events import ending_events
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace


@engine_task(lambda parameters: f"stage {short_name(parameters['spec_or_ref'])}")
def stage_dataset(
    spec_or_ref: SpecLike | Address,
    *,
    peers: Collection[str] = (),
    cache: CacheLike = None,
    catalog: CatalogLike = None,
) -> Version:
    """Fetch a dataset into this node's cache, verified and complete, or not at all.

    Objects that are here, or that an interrupted run fetched, are not fetched again.

    Args:
        spec_or_ref: A spec (path, URL, dictionary or loaded), whose sources are listed and become `latest`; or a
            version, `nycflights@production` or `nycflights@sha256:…`, which is fetched unchanged.
        peers: Names of the nodes that fetch an existing version at the same time. Those of one site read its sources
            once, and the rest from one another.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Emits `stagegate.evidence.ending` when evidence that a target of the dataset rests on ends soon, or ended.

    Raises:
        StagegateError: Nothing was published, and every ref stays. The task tries once more when it is `retryable`.
    """
    workspace = open_places(cache, catalog)
    origin = parse(spec_or_ref)
    with (
        # The outermost two look at what is left when the staging failed, too.
        showing_failed(origin.dataset),
        watched_room(workspace),
        live_progress(f"{origin.dataset}-stage") as progress,
        ending() as cancel,
    ):
        version = stage(workspace, origin, peers=peers, progress=progress, cancel=cancel)
    announce_version(version, origin)
    _announce_endings(workspace, version.dataset)
    show_failed(version.dataset, version.failed, digest=version.digest)
    return version


def _announce_endings(workspace: Workspace, dataset: str) -> None:
    """Emit an event for each target of a dataset whose evidence ends soon, or ended. In a run only."""
    if in_a_run():
        from prefect_stagegate.jobs.review.status import inbox, status  # late: it imports the gate

        with unfailing(f"look whether evidence about {dataset} ends"):
            unreadable = UnreadableRecords()
            for event in ending_events(inbox(status(workspace, dataset, unreadable), unreadable)):
                announce(event)


astage_dataset = async_twin(stage_dataset)
