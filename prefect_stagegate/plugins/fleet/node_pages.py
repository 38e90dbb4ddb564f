"""The pages of nodes: what lies where, how much room there is, and which GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prefect_stagegate.clock import now
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.errors import UnknownRef
from prefect_stagegate.jobs.running_jobs import RunningJob, running_jobs
from prefect_stagegate.model.settings import NODE_NAME
from prefect_stagegate.plugins.fleet.nodes import HeldVersion, NodeRecord, read_node, read_nodes, record_timeout
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

FRESH = 5.0
"""Seconds for which the nodes' records are believed."""
NODES = 100
"""Nodes of one page."""
JOBS = 100
"""Running jobs that are shown."""
VERSIONS = 100
"""Versions of one page of a node."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node."""

    record: NodeRecord
    is_current: bool
    """Whether the record is young enough to say what the node holds now."""
    complete: int
    """How many versions it holds complete."""
    partial: int
    """How many it holds in part, or fetches."""

    @property
    def gpus(self) -> str:
        """How many of which models."""
        return ", ".join(f"{count} × {model}" for model, count in self.record.gpus.items())


@dataclass(frozen=True, slots=True)
class NodesPage:
    """What the page of all nodes shows."""

    rows: tuple[NodeRow, ...]
    slice: Any
    current: int
    """How many of all nodes have a current record."""
    jobs: tuple[RunningJob, ...]
    """The jobs that write into the cache of the node that serves the pages."""
    unreadable: UnreadableRecords


@dataclass(frozen=True, slots=True)
class NodePage:
    """What the page of one node shows."""

    row: NodeRow
    versions: tuple[tuple[HeldVersion, tuple[str, ...]], ...]
    """The versions of this page, each with the node's refs that name it."""
    slice: Any


def nodes_page(request: PageRequest) -> NodesPage:
    """The page of all nodes."""
    records, unreadable = request.recent(_read, fresh=FRESH)
    rows = [_row(request.workspace, record, now()) for record in records]
    cut = request.slice(NODES, len(rows))
    shown = tuple(rows[position] for position in cut.range)
    jobs = running_jobs(request.workspace.cache, unreadable)[:JOBS]
    return NodesPage(shown, cut, sum(row.is_current for row in rows), tuple(jobs), unreadable)


def node_page(request: PageRequest) -> NodePage:
    """The page of one node.

    Raises:
        UnknownRef: No node of this name wrote a record.
        CorruptRecord: Its record is damaged.
    """
    name, catalog = request.names["node"], request.workspace.catalog
    if not NODE_NAME.fullmatch(name):
        raise UnknownRef(f"{name[:80]!r} is no name of a node")
    records, _ = request.recent(_read, fresh=FRESH)
    record = next((record for record in records if record.name == name), None) or read_node(catalog, name)
    if record is None:
        raise UnknownRef(f"No node {name!r} wrote a record", hint="`stagegate nodes` lists the nodes.")
    held = sorted(record.versions, key=lambda version: (version.dataset, version.digest))
    cut = request.slice(VERSIONS, len(held))
    shown = [held[position] for position in cut.range]
    versions = tuple((version, record.refs_to(version.dataset, version.digest)) for version in shown)
    return NodePage(_row(request.workspace, record, now()), versions, cut)


def _read(workspace: Workspace) -> tuple[list[NodeRecord], UnreadableRecords]:
    unreadable = UnreadableRecords()
    return read_nodes(workspace.catalog, unreadable), unreadable


def _row(workspace: Workspace, record: NodeRecord, at: datetime) -> NodeRow:
    complete = sum(held.is_complete for held in record.versions)
    is_current = record.is_current(at, record_timeout(workspace.settings))
    return NodeRow(record, is_current, complete, len(record.versions) - complete)
