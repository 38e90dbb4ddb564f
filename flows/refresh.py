"""The flow `refresh`: keep this node's copies of datasets current."""

from __future__ import annotations

from prefect import flow

from prefect_stagegate.model import Version
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, SpecParameter
from prefect_stagegate.tasks.held_refs import held_refs
from prefect_stagegate.tasks.stage_dataset import stage_dataset


@flow(name="stagegate-refresh")
def refresh(datasets: list[SpecParameter], cache: CacheLike = None, catalog: CatalogLike = None) -> list[Version]:
    """Bring each dataset again, and what its targets' refs name by now where this node has copies of them.

    One that can't be brought keeps no other from its turn, and fails the run after it.

    Args:
        datasets: Specs, which are staged again; or versions, `nycflights@production`, which are brought as the
            catalog has them.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    brought = []
    for dataset in datasets:
        brought.append(stage_dataset(dataset, cache=cache, catalog=catalog, return_state=True))
        if brought[-1].is_completed():
            refs = held_refs(dataset, cache=cache, catalog=catalog)
            brought += [
                stage_dataset(ref, cache=cache, catalog=catalog, return_state=True) for ref in refs if ref != dataset
            ]
    return [state.result() for state in brought]
