"""The flow `stage_node`: one node's part in staging a fleet, started by `stage_fleet`."""

from __future__ import annotations

from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed

from prefect_stagegate.plugins.fleet.barrier import NodeReport
from prefect_stagegate.plugins.fleet.engines.pool import to_message
from prefect_stagegate.plugins.fleet.flows.stage_on_node import stage_on_node
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, short_name


def _run_name() -> str:
    """The version, or the ref that is moved to it: `stage nycflights@production on a node`."""
    parameters = flow_run.parameters
    dataset = short_name(parameters["version"])
    ref = parameters.get("ref")
    return f"point {dataset.partition('@')[0]}@{ref} on a node" if ref else f"stage {dataset} on a node"


@flow(name="stagegate-stage-node", flow_run_name=_run_name)
def stage_node(
    version: str,
    ref: str = "",
    proof: Literal["hash", "count"] = "hash",
    fleet: bool = False,
    cache: CacheLike = None,
    catalog: CatalogLike = None,
) -> State[NodeReport]:
    """Bring a version to this node and prove it there; or, with a ref, move the node's copy of the ref to it.

    One deployment of this flow serves all queues of a work pool. The report is the message of the run's state, where
    `stage_fleet` reads it.

    Args:
        version: `nycflights@sha256:…`, with the whole digest.
        ref: The ref whose copy is to name the version, which must be here; empty to bring it, and move no ref.
        proof: `hash` reads each byte from the disk again, and fetches rotten files again. `count` looks at sizes and
            links only.
        fleet: Whether the catalog lists nodes that fetch the same version now.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        StagegateError: The version isn't complete here, or the ref may not move.
    """
    report = stage_on_node(version, ref, proof=proof, fleet=fleet, cache=cache, catalog=catalog)
    return Completed(message=to_message(report), data=report)
