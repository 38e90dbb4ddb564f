"""The flow `refresh`: keep this node's copies of datasets current."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from prefect_stagegate.model import Version
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, SpecParameter, short_name
from prefect_stagegate.tasks.held_refs import held_refs
from prefect_stagegate.tasks.stage_dataset import stage_dataset

NAMED = 3
"""Datasets that a run's name has, at most."""


def _run_name() -> str:
    """The datasets: `refresh nycflights, weather`."""
    names = list(map(short_name, flow_run.parameters["datasets"]))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"refresh {', '.join(names[:NAMED])}{more}"


@flow(name="stagegate-refresh", flow_run_name=_run_name)
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
