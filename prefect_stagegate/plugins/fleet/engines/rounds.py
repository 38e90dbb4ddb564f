"""The two rounds of staging a fleet: nodes hold the version and prove it; then the ref moves on those that do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.barrier import (
    FleetPolicy,
    FleetPolicyLike,
    FleetResult,
    NodeReport,
    merged_reports,
)
from prefect_stagegate.plugins.fleet.engines.fleet_engine import FleetEngine, NodeJob, collect_reports, failed
from prefect_stagegate.plugins.fleet.members import choose_nodes, reports_of_full_nodes, require_committed
from prefect_stagegate.plugins.fleet.node import Proof
from prefect_stagegate.plugins.fleet.nodes import read_nodes
from prefect_stagegate.plugins.fleet.peers.peer_search import announce_fleet
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, open_places
from prefect_stagegate.units import count_text
from prefect_stagegate.unreadable import UnreadableRecords


@dataclass(frozen=True, slots=True)
class Fleet:
    """A version, and the nodes that are to hold it."""

    dataset: str
    digest: str
    ref: str
    """The ref to move on the nodes; empty for a version by its digest."""
    policy: FleetPolicy
    nodes: tuple[str, ...]
    """Sorted."""
    full: tuple[NodeReport, ...]
    """Nodes on which the version can never fit."""
    is_announced: bool = False
    """Whether the catalog lists the nodes that may be asked for the version's blobs."""

    def result(self, reports: Sequence[NodeReport]) -> FleetResult:
        """The fleet with its nodes' reports."""
        ordered = tuple(sorted(reports, key=lambda report: report.node))
        required = self.policy.required(len(self.nodes))
        return FleetResult(self.dataset, self.digest, self.ref, self.policy.text, required, ordered)


def plan_fleet(
    available: Collection[str],
    version: str,
    nodes: Sequence[str] | None,
    selector: Mapping[str, str] | None,
    policy: FleetPolicyLike,
    *,
    cache: CacheLike,
    catalog: CatalogLike,
) -> Fleet:
    """Resolve the version once, and choose the nodes.

    Raises:
        UsageError: There is no such version or node, or so many nodes can't meet the policy.
    """
    workspace, address = open_places(cache, catalog), Address.parse(version)
    digest = workspace.catalog.resolve(address)
    records = read_nodes(workspace.catalog, UnreadableRecords())
    chosen = choose_nodes(available, nodes, selector, records)
    parsed = FleetPolicy.parse(policy, len(chosen))
    full = tuple(reports_of_full_nodes(workspace, address.dataset, digest, set(chosen), records))
    run_log().info("%s to %s: %s", version, count_text(len(chosen), "node"), digest)
    # To all of them: only nodes that know of the same ones agree on who reads which blob from the source.
    able = set(chosen) - {report.node for report in full}
    is_announced = announce_fleet(workspace, address.dataset, digest, able, records)
    return Fleet(address.dataset, digest, address.named_ref, parsed, tuple(chosen), full, is_announced)


def bring_to_nodes(engine: FleetEngine, fleet: Fleet, proof: str, timeout: float) -> FleetResult:
    """The first round: each node fetches the version and proves it. No ref moves.

    Nothing starts when the nodes on which it fits are too few for the policy.
    """
    full = {report.node: report for report in fleet.full}
    able = tuple(node for node in fleet.nodes if node not in full)
    if len(able) < fleet.policy.required(len(fleet.nodes)):
        idle = (failed(node, "not started: too few nodes have room for the policy") for node in able)
        return fleet.result([*fleet.full, *idle])
    jobs = dict.fromkeys(able, NodeJob(fleet.dataset, fleet.digest, proof=Proof(proof), fleet=fleet.is_announced))
    return fleet.result([*fleet.full, *collect_reports(engine, jobs, timeout)])


def move_on_nodes(
    engine: FleetEngine, fleet: Fleet, result: FleetResult, timeout: float, *, cache: CacheLike, catalog: CatalogLike
) -> FleetResult:
    """The second round: the ready nodes move their copies of the ref.

    The catalog's ref is what a node follows that misses this round, so it is asked once more before any copy moves.

    Raises:
        NotReady: The catalog's ref moved, or the version was withdrawn; no copy moved.
    """
    require_committed(open_places(cache, catalog), fleet.dataset, fleet.ref, fleet.digest)
    jobs = {report.node: NodeJob(fleet.dataset, fleet.digest, fleet.ref) for report in result.ready}
    flips = collect_reports(engine, jobs, timeout)
    return replace(result, reports=merged_reports(result.reports, flips))
