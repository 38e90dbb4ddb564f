"""Where versions lie: what each node has of a version, and which node a run should go to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from prefect_stagegate.catalog.version_records import read_seal
from prefect_stagegate.clock import now
from prefect_stagegate.errors import NotReady
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.barrier import NAMED
from prefect_stagegate.plugins.fleet.nodes import NodePlacement, Placement, placement, read_nodes, record_timeout
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace


@dataclass(frozen=True, slots=True)
class VersionPlacement:
    """One version, and what each node has of it."""

    dataset: str
    digest: str
    bytes: int
    nodes: tuple[NodePlacement, ...]
    """Sorted by name."""

    def having(self, state: Placement) -> list[NodePlacement]:
        """The nodes in one state."""
        return [node for node in self.nodes if node.placement is state]


def find_version(workspace: Workspace, address: Address, unreadable: UnreadableRecords) -> VersionPlacement:
    """What each node has of a version, by the nodes' own records.

    Raises:
        UsageError: There is no such dataset, ref or version.
    """
    digest = workspace.catalog.resolve(address)
    sums = read_seal(workspace.catalog, address.dataset, digest)
    time, timeout = now(), record_timeout(workspace.settings)
    nodes = (
        placement(record, address.dataset, digest, sums.bytes, time, timeout)
        for record in read_nodes(workspace.catalog, unreadable)
    )
    return VersionPlacement(address.dataset, digest, sums.bytes, tuple(nodes))


def choose_node(workspace: Workspace, address: Address, candidates: Collection[str] | None = None) -> NodePlacement:
    """Choose the node for a run on a version: of those that hold it complete, the one with the most room.

    Args:
        workspace: The catalog.
        address: The version; by a target's ref, the version that the catalog's ref names.
        candidates: Names of the nodes that may be chosen; None for all.

    Raises:
        NotReady: No candidate holds it, or only nodes do whose record is too old. The message names 20 of them at most.
        UsageError: There is no such dataset, ref or version.
    """
    found = find_version(workspace, address, UnreadableRecords())
    nodes = [node for node in found.nodes if candidates is None or node.node in candidates]
    if complete := [node for node in nodes if node.placement is Placement.COMPLETE]:
        return max(complete, key=lambda node: (node.room, node.node))
    states = _some([f"{node.node}: {node.placement}" for node in nodes], "; ") or "none of them has a record"
    wanted = "" if candidates is None else f" of {_some(sorted(candidates), ', ') or 'no node with a worker'}"
    raise NotReady(
        f"No node{wanted} holds {address.dataset}@{found.digest} complete ({states})",
        hint=f"`stagegate nodes {address}` shows each node; `stagegate stage {address}` on a node fetches it there.",
        dataset=address.dataset,
    )


def _some(texts: Sequence[str], separator: str) -> str:
    """As many of the texts as a message names."""
    more = [f"{len(texts) - NAMED:,} more"] if len(texts) > NAMED else []
    return separator.join([*texts[:NAMED], *more])
