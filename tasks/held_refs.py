"""`held_refs`: the refs of a dataset that this node has copies of."""

from __future__ import annotations

from prefect_stagegate.jobs.address import SpecLike, parse
from prefect_stagegate.model import LATEST
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, engine_task, open_places, short_name


@engine_task(lambda parameters: f"find the refs of {short_name(parameters['dataset'])} on this node")
def held_refs(dataset: SpecLike, *, cache: CacheLike = None, catalog: CatalogLike = None) -> tuple[str, ...]:
    """The targets of a dataset that this node has a copy of, as addresses: `nycflights@production`.

    Args:
        dataset: The dataset's name, or a spec.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    name = parse(dataset).dataset
    refs = open_places(cache, catalog).cache.refs.names(name)
    run_log().info("%s on this node: %s", name, ", ".join(refs) or "no refs")
    # Staging moves `latest` by itself, so only what targets name is left to fetch.
    return tuple(f"{name}@{ref}" for ref in refs if ref != LATEST)
