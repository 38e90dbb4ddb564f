"""Nodes that hold what `tests.support.large_catalog` writes."""

from __future__ import annotations

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import Records
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.plugins.fleet.nodes import HeldVersion, NodeRecord, put_node

NODES = 4


def write_nodes(records: Records, datasets: int, digest: str, size: int) -> None:
    """A record for each node; each holds one version of three quarters of the datasets."""
    for number in range(NODES):
        held = tuple(
            HeldVersion(f"set-{place:03}", digest, size) for place in range(datasets) if place % NODES != number
        )
        put_node(Catalog(records), NodeRecord(f"gpu-{number}", stamp(now()), "/nvme/stagegate", held, room=10**12))
