"""The flow `stage_fleet`: one version to many nodes, a barrier, and then the ref on all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated, Literal

from prefect import State, flow
from prefect.runtime import flow_run
from pydantic import Field

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.fleet.barrier import FleetResult
from prefect_stagegate.plugins.fleet.engines.dask import dask_engine
from prefect_stagegate.plugins.fleet.engines.fleet_engine import FleetEngine
from prefect_stagegate.plugins.fleet.engines.pool import pool_engine
from prefect_stagegate.plugins.fleet.engines.ray import ray_engine
from prefect_stagegate.plugins.fleet.engines.rounds import bring_to_nodes, move_on_nodes, plan_fleet
from prefect_stagegate.plugins.fleet.engines.showing import end_fleet
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, short_name

HOUR = 60 * 60
THREE_HEARTBEATS = 90


def _run_name() -> str:
    """What is staged where: `nycflights@production → nodes`."""
    parameters = flow_run.parameters
    engine = parameters["pool"] or ("Dask" if parameters["dask"] else "Ray")
    return f"{short_name(parameters['version'])} → {engine}"


@flow(name="stagegate-stage-fleet", flow_run_name=_run_name)
def stage_fleet(  # noqa: PLR0913 - the form of a run
    version: str,
    pool: str | None = None,
    nodes: list[str] | None = None,
    selector: dict[str, str] | None = None,
    policy: Literal["all", "best_effort"] | dict[str, int] = "all",
    *,
    proof: Literal["hash", "count"] = "hash",
    timeout: Annotated[int, Field(ge=1)] = HOUR,
    lost_after: Annotated[int, Field(ge=1)] = THREE_HEARTBEATS,
    deployment: str = "stagegate-stage-node/fleet",
    dask: str | None = None,
    ray: str | None = None,
    cache: CacheLike = None,
    catalog: CatalogLike = None,
) -> FleetResult | State[FleetResult]:
    """Bring a version to each node of a fleet. When enough of them proved it, move the ref on all that did.

    First each node fetches the version and reports the digest of what it hashed on its own disk. When the policy is
    met, and the catalog's ref still names the version, each ready node's copy of the ref moves. Both rounds may be
    repeated at any time. The failed state is "Fleet not ready"; its message names the nodes that are missing, and why.
    The artifact `<dataset>-fleet` has all nodes.

    Args:
        version: `nycflights@production`; or `nycflights@sha256:…`, which is brought and proved, and no ref moves.
        pool: A Prefect work pool with a worker for each node, named as the node, that polls a queue of that name.
        nodes: The nodes' names; by default all that the engine knows.
        selector: What a node's record must say: `{"site": "berlin", "gpu": "H100"}`.
        policy: How many nodes must be ready before the ref moves on those that are: `all`, `{"quorum": 3}`, or
            `best_effort`, which is one at least.
        proof: `hash`: nodes read each byte from their disks again. `count`: they look at sizes and links.
        timeout: Seconds that each round may take. A node without a report by then is lost.
        lost_after: Seconds without a sign of life after which a node is lost.
        deployment: The deployment of `stage_node` that the pool's nodes run.
        dask: A Dask scheduler's address, in place of a pool; nodes are its workers' names.
        ray: A Ray cluster's address, in place of a pool; nodes are resources of their names.
        cache: The cache of the node that runs this flow; by default the settings'.
        catalog: The shared catalog; by default the settings'. Nodes take theirs from their own settings.

    Raises:
        NotReady: The policy was not met; or the catalog's ref moved, or the version was withdrawn, meanwhile.
        UsageError: There is no such version, node or engine, or the policy can't be met by so many nodes.
    """
    with open_engine(pool, deployment, dask, ray, lost_after) as engine:
        fleet = plan_fleet(engine.nodes(), version, nodes, selector, policy, cache=cache, catalog=catalog)
        result = bring_to_nodes(engine, fleet, proof, timeout)
        if fleet.ref and result.is_met:
            result = move_on_nodes(engine, fleet, result, timeout, cache=cache, catalog=catalog)
    return end_fleet(result)


def open_engine(
    pool: str | None, deployment: str, dask: str | None, ray: str | None, lost_after: float
) -> AbstractContextManager[FleetEngine]:
    """The engine that the user named: a Prefect work pool, a Dask scheduler or a Ray cluster.

    Raises:
        UsageError: None or several were named, or the one doesn't exist.
        MissingExtra: Its library is not installed.
        SourceUnavailable: It does not answer.
    """
    if sum(name is not None for name in (pool, dask, ray)) != 1:
        raise UsageError(
            "A fleet has one engine", hint="Give one of `pool` (a Prefect work pool), `dask` and `ray` (addresses)."
        )
    if dask is not None:
        return dask_engine(dask, lost_after)
    if ray is not None:
        return ray_engine(ray, lost_after)
    return pool_engine(pool or "", deployment, lost_after)
