"""`list_sources`, the first of four small steps: list the objects in a spec's sources.

    list_sources → plan_transfer → transfer → publish_version

`stage_dataset` does all four as a stream. The single steps pass tuples, so a flow can look at them and change them.
"""

from __future__ import annotations

from prefect_stagegate.operations.address import SpecLike, read_spec
from prefect_stagegate.operations.staging import stage
from prefect_stagegate.operations.staging.sources import open_sources
from prefect_stagegate.operations.staging.unchanged import SelectedObject
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.running import engine_task, short_name
from prefect_stagegate.units import count_text


@engine_task(lambda parameters: f"list the sources of {short_name(parameters['spec'])}")
def list_sources(spec: SpecLike, *, cache: CacheLike = None, catalog: CatalogLike = None) -> tuple[SelectedObject, ...]:
    """List the objects in a spec's sources that its globs include.

    Args:
        spec: A path, URL, dictionary, or a loaded spec.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        SourceError: A source can't be listed.
    """
    loaded, workspace = read_spec(spec), open_places(cache, catalog)
    with open_sources(workspace, loaded) as sources:
        listed = tuple(stage.list_sources(workspace, loaded, sources))
    counts = count_text(len(listed), "object"), count_text(len(loaded.sources), "source")
    run_log().info("%s: %s in %s", loaded.dataset, *counts)
    return listed
