"""`place`: the node that a run on a version should go to."""

from __future__ import annotations

from prefect_stagegate.gate.prefect_state import live_workers
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.placement import choose_node
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, engine_task, open_places


@engine_task(lambda parameters: f"place {parameters['dataset']}")
def place(dataset: str, pool: str | None = None, *, cache: CacheLike = None, catalog: CatalogLike = None) -> str:
    """The name of a node that holds a version complete, for the work queue of a run on it.

    Of several nodes, the one with the most room is chosen. A node whose record is too old counts as unknown.

    Args:
        dataset: The version: `nycflights@production`, or `nycflights@sha256:…`.
        pool: A work pool with a queue and a worker for each node, both named as the node. Only nodes whose worker had
            a heartbeat lately are chosen; without a pool, any node.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        NotReady: No such node holds the version; the message says what each node has.
        UsageError: There is no such dataset, ref or version.

    Example:
        node = place("nycflights@production", "gpus")
        run_deployment("train/nycflights", work_queue_name=node)
    """
    workspace = open_places(cache, catalog)
    candidates = live_workers(pool) if pool else None
    chosen = choose_node(workspace, Address.parse(dataset), candidates)
    run_log().info("%s lies complete on %s, as of %s", dataset, chosen.node, chosen.at)
    return chosen.node
