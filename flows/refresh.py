"""The flow `refresh`: keep this node's copies of datasets current."""

from __future__ import annotations

from prefect import flow

from prefect_stagegate.model import Version
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, SpecParameter
from prefect_stagegate.tasks.held_refs import held_refs
from prefect_stagegate.tasks.stage_dataset import stage_dataset


@flow(name="stagegate-refresh")
def refresh(datasets: list[SpecParameter], cache: CacheLike = None, catalog: CatalogLike = None) -> list[Version]:
    """Stage each dataset again, and fetch the current versions of the targets that this node has copies of.

    A dataset that can't be staged does not keep the others from being staged. It fails the run at the end.

    Args:
        datasets: Specs, which are staged again; or versions, `nycflights@production`, which are fetched as the
            catalog has them.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    states = []
    for dataset in datasets:
        states.append(stage_dataset(dataset, cache=cache, catalog=catalog, return_state=True))
        # A spec makes only a new `latest`: fetch also what the targets of its dataset name now.
        if states[-1].is_completed():
            refs = held_refs(dataset, cache=cache, catalog=catalog)
            states += [
                stage_dataset(ref, cache=cache, catalog=catalog, return_state=True) for ref in refs if ref != dataset
            ]
    # Raises the first error, but only after every dataset was tried.
    return [state.result() for state in states]
