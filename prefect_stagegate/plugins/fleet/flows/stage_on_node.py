"""`stage_on_node`: this node's part in staging a fleet."""

from __future__ import annotations

from typing import Literal

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.barrier import NodeReport
from prefect_stagegate.plugins.fleet.node import Proof, flip_ref, hold_version
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import run_log, showing_failed, watched_room
from prefect_stagegate.tasks._support.run_progress import live_progress
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, engine_task, open_places, short_name
from prefect_stagegate.units import bytes_text, count_text


@engine_task(lambda parameters: f"{'move' if parameters['ref'] else 'hold'} {short_name(parameters['version'])}")
def stage_on_node(
    version: str,
    ref: str = "",
    *,
    proof: Literal["hash", "count"] = "hash",
    fleet: bool = False,
    cache: CacheLike = None,
    catalog: CatalogLike = None,
) -> NodeReport:
    """Bring a version to this node and prove it there; or, with a ref, move the node's copy of the ref to it.

    Args:
        version: `nycflights@sha256:…`, with the whole digest.
        ref: The ref whose copy is to name the version, which must be here; empty to bring it, and move no ref.
        proof: `hash` reads each byte from the disk again, and fetches rotten files again. `count` looks at sizes and
            links only.
        fleet: Whether the catalog lists nodes that fetch the same version now.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Returns:
        What the node counted and hashed on its own disk, with the digest of that.

    Raises:
        StagegateError: The version isn't complete here, or the ref may not move; nothing of it became visible.
    """
    address = Address.parse(version)
    if not address.digest:
        raise UsageError(f"{version} names no digest", hint="Write DATASET@sha256:… with all 64 digits.")
    workspace = open_places(cache, catalog)
    if ref:
        return flip_ref(workspace, address.dataset, ref, address.digest)
    with (
        showing_failed(address.dataset),
        watched_room(workspace),
        live_progress(f"{address.dataset}-stage") as progress,
        ending() as cancel,
    ):
        report = hold_version(workspace, address, proof=Proof(proof), fleet=fleet, progress=progress, cancel=cancel)
    run_log().info(
        "%s: %s, %s counted, %s hashed on the disk, %s fetched",
        version,
        count_text(report.files, "file"),
        *map(bytes_text, (report.bytes, report.hashed, report.fetched)),
    )
    return report
