"""The flow `refresh`: keep this node's copies of datasets current."""

from __future__ import annotations

from prefect import flow

from prefect_stagegate.model import Version
from prefect_stagegate.tasks.held_refs import held_refs
from prefect_stagegate.tasks.places import CacheLike, CatalogLike, SpecParameter
from prefect_stagegate.tasks.stage_dataset import stage_dataset


@flow(name="stagegate-refresh")
def refresh(datasets: list[SpecParameter], cache: CacheLike = None, catalog: CatalogLike = None) -> list[Version]:
    """Bring each dataset again, and what its targets' refs name by now where this node has copies of them.

    Args:
        datasets: Specs, which are staged again; or versions, `nycflights@production`, which are brought as the
            catalog has them.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    return [
        stage_dataset(one, cache=cache, catalog=catalog)
        for dataset in datasets
        for one in (dataset, *(ref for ref in held_refs(dataset, cache=cache, catalog=catalog) if ref != dataset))
    ]
