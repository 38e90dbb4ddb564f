"""`plan_transfer`, the second small step: decide what to do with each listed object."""

from __future__ import annotations

from collections.abc import Iterable

from prefect_stagegate.model import Action, PlannedObject
from prefect_stagegate.operations.address import SpecLike, read_spec
from prefect_stagegate.operations.staging import stage
from prefect_stagegate.operations.staging.sources import open_sources
from prefect_stagegate.operations.staging.unchanged import SelectedObject
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.running import engine_task, short_name
from prefect_stagegate.units import bytes_text, count_text


@engine_task(lambda parameters: f"plan the transfer of {short_name(parameters['spec'])}")
def plan_transfer(
    spec: SpecLike, listed: Iterable[SelectedObject], *, cache: CacheLike = None, catalog: CatalogLike = None
) -> tuple[PlannedObject, ...]:
    """Decide which listed objects to fetch, by the records of this node and the catalog. Nothing is fetched.

    Args:
        spec: A path, URL, dictionary, or a loaded spec.
        listed: The result of `list_sources` for the same spec.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: Two objects want one path, or a path can't stand in a manifest.
    """
    loaded, workspace = read_spec(spec), open_places(cache, catalog)
    with open_sources(workspace, loaded) as sources:
        planned = tuple(stage.plan_transfer(workspace, loaded, sources, listed))
    sizes = [item.object.size for item in planned if item.action is Action.FETCH]
    objects = count_text(len(planned), "object")
    run_log().info("%s: %d of %s to fetch, %s", loaded.dataset, len(sizes), objects, bytes_text(sum(sizes)))
    return planned
