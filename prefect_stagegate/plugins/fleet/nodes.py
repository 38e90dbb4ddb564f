"""What a node says of itself: the versions that its cache holds, its room, and where its blob server answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import corrupt, encode
from prefect_stagegate.clock import moment, now
from prefect_stagegate.doors import Record
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

READERS = 32
"""Records that are read at a time: S3 answers one in 20 ms, and there may be a thousand."""
CLOCK_SKEW = 60.0
"""Seconds by which a record may lie ahead of the reader's clock."""
ASKED = 4
"""Nodes before itself in a blob's order that a node asks, at most, and of further holders as many."""
SHARD = slice(len("blake3:"), len("blake3:") + 3)
"""The digits of a blob's digest that decide its order: 4,096 orders, each computed once."""


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """A version that lies in a node's cache, or a part of it."""

    dataset: str
    digest: str
    bytes: int
    """Bytes of all its entries."""
    missing: int = 0
    """Bytes of its entries that the node lacks or that rotted there; 0 for a complete version."""
    fetching: bool = False
    """Whether the node is fetching it."""
    pinned: bool = False
    """Whether somebody pinned it there. False in records of earlier releases."""

    @property
    def is_complete(self) -> bool:
        """Whether its view is published and no file of it is known to be rotten."""
        return not self.missing and not self.fetching


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node, as it was at `at`. The catalog keeps the newest record of each node."""

    name: str
    at: str
    """When it was written, as ISO 8601 by the node's clock."""
    cache: str
    """The cache's folder."""
    versions: tuple[HeldVersion, ...] = ()
    refs: Mapping[str, str] = field(default_factory=dict)
    """The node's copies of refs: the digest by `dataset@ref`."""
    used: int = 0
    """Bytes that the cache takes."""
    room: int = 0
    """Bytes that a writer may still write."""
    site: str = ""
    """Nodes of one site read blobs from one another; empty for a node that asks no other."""
    url: str = ""
    """The URL of its blob server; empty without one."""
    gpus: Mapping[str, int] = field(default_factory=dict)
    """How many of each model."""
    environment: str = ""
    """The fingerprint of its environment, as its agent captured it last; empty where none ran."""
    volumes: tuple[Any, ...] = ()
    """Only in records of earlier releases, whose nodes could have several cache folders."""
    identity: str = ""
    """The random id of its cache, by which two nodes of one name differ; empty in records of earlier releases."""

    def age(self, now: datetime) -> float:
        """Seconds since it was written."""
        return (now - moment(self.at)).total_seconds()

    def is_current(self, now: datetime, timeout: float) -> bool:
        """Whether it was written at most `timeout` seconds ago. Any other says nothing of the node as it is now."""
        return -CLOCK_SKEW <= self.age(now) <= timeout

    def version(self, dataset: str, digest: str) -> HeldVersion | None:
        """What the node holds of a version; None for nothing."""
        return next((held for held in self.versions if (held.dataset, held.digest) == (dataset, digest)), None)

    def refs_to(self, dataset: str, digest: str) -> tuple[str, ...]:
        """The node's refs of a dataset that name a version, sorted."""
        prefix = f"{dataset}@"
        refs = (ref for ref, version in self.refs.items() if ref.startswith(prefix) and version == digest)
        return tuple(sorted(ref.removeprefix(prefix) for ref in refs))


@dataclass(frozen=True, slots=True)
class FleetMember:
    """A node that others of its site may ask for a version's blobs."""

    name: str
    site: str
    url: str
    """The URL of its blob server."""
    holds: bool
    """Whether it has the whole version; otherwise it fetches it."""


class Placement(StrEnum):
    """What a node has of a version."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    """A part of its bytes is there, or it is being fetched, and the rest fits."""
    ABSENT = "absent"
    """Nothing is there, and all of it fits."""
    NO_ROOM = "no room"
    """What is missing does not fit without a collection."""
    UNKNOWN = "unknown"
    """The node's record is too old, or can't be read."""


@dataclass(frozen=True, slots=True)
class NodePlacement:
    """What one node has of one version."""

    node: str
    placement: Placement
    missing: int
    """Bytes that the node lacks, as far as its record says."""
    names: tuple[str, ...] = ()
    """The node's refs that name the version."""
    fetching: bool = False
    room: int = 0
    at: str = ""
    """When the node's record was written."""


def record_timeout(settings: Settings) -> float:
    """Seconds after which a node's record counts as unknown."""
    return settings.of(FleetSettings).node_timeout


def placement(record: NodeRecord, dataset: str, digest: str, size: int, now: datetime, timeout: float) -> NodePlacement:
    """What a node has of a version of `size` bytes.

    Args:
        record: The node's newest record.
        dataset: The version's dataset.
        digest: The version's digest.
        size: Bytes of all its entries.
        now: The reader's time.
        timeout: Seconds after which a record counts as unknown.
    """
    held = record.version(dataset, digest)
    missing = held.missing if held else size
    fetching = bool(held and held.fetching)
    if not record.is_current(now, timeout):
        state = Placement.UNKNOWN
    elif held and held.is_complete:
        state = Placement.COMPLETE
    elif missing > record.room:
        state = Placement.NO_ROOM
    elif held:
        state = Placement.PARTIAL
    else:
        state = Placement.ABSENT
    refs = record.refs_to(dataset, digest)
    return NodePlacement(record.name, state, missing, refs, fetching, record.room, record.at)


class BlobOrder:
    """Which nodes one node asks for each blob of a version, by rendezvous hashing.

    All nodes that know of the same ones put them in the same order for a blob. The first has it or fetches it from the
    source; each other asks those before itself, so that nobody waits in a circle. Holders are asked last of all, too.

    Args:
        node: The node that asks; empty for one that nobody can ask.
        holders: Other nodes that have every blob.
        fetching: Other nodes that fetch the version.
    """

    def __init__(self, node: str, holders: Collection[str], fetching: Collection[str]) -> None:
        self._node, self._holders = node, frozenset(holders)
        self._names = {*holders, *fetching, *([node] if node else [])}
        self._orders: dict[str, tuple[str, ...]] = {}

    def __call__(self, digest: str) -> tuple[str, ...]:
        """The names of the nodes to ask for the blob `blake3:<hex>`, the first to ask first."""
        shard = digest[SHARD]
        if shard not in self._orders:
            self._orders[shard] = self._order(shard)
        return self._orders[shard]

    def _order(self, shard: str) -> tuple[str, ...]:
        def weight(name: str) -> tuple[bytes, str]:
            return hashlib.blake2b(f"{name}\0{shard}".encode(), digest_size=8).digest(), name

        ranked = sorted(self._names, key=weight)
        before = ranked[: ranked.index(self._node)] if self._node else ranked
        first = before[:ASKED]
        return (*first, *[name for name in ranked if name in self._holders and name not in first][:ASKED])


NODES = Record("stagegate.nodes", NodeRecord, is_shared=True)


def put_node(catalog: Catalog, record: NodeRecord) -> None:
    """Store a node's record over its last one."""
    catalog.put(NODES, record, record.name)


def read_node(catalog: Catalog, name: str) -> NodeRecord | None:
    """The newest record of a node; None for a node that never wrote one."""
    record = catalog.get(NODES, name)
    if record is None:
        return None
    if record.name != name:
        raise corrupt(NODES.path(name), "is about another node")
    try:
        moment(record.at)
        encode(record)
    except (ValueError, TypeError) as error:
        # Every list of nodes reads all records: one that nobody can show or compare must not end it.
        raise corrupt(NODES.path(name), f"has a time or number that can't be used: {error}") from error
    return record


def node_names(catalog: Catalog) -> list[str]:
    """The names of all nodes that ever wrote a record, sorted; see `Plugin.nodes`."""
    return catalog.names(NODES)


def read_nodes(catalog: Catalog, unreadable: UnreadableRecords) -> list[NodeRecord]:
    """The newest record of each node, sorted by name. `unreadable` collects those that can't be read."""

    def read(name: str) -> NodeRecord | None:
        with unreadable.skip(""):
            return read_node(catalog, name)
        return None

    with ThreadPoolExecutor(READERS, "stagegate-nodes") as pool:
        return [record for record in pool.map(read, catalog.names(NODES)) if record]


def why_needed(workspace: Workspace, dataset: str) -> Callable[[str], str]:
    """Why a version may not be removed from the catalog: a node fetches it, or has a pin; see `Plugin.keeps`.

    A record's pin counts however old the record is.
    """
    unreadable, timeout = UnreadableRecords(), record_timeout(workspace.settings)
    records = read_nodes(workspace.catalog, unreadable)

    def why(digest: str) -> str:
        for record in records:
            held = record.version(dataset, digest)
            if held and held.pinned:
                return f"it is pinned on {record.name}, by the node's record of {record.at[:16]}Z"
            if held and held.fetching and record.is_current(now(), timeout):
                return f"{record.name} fetches it"
        return next((f"a node's pins are not known: {lost.problem}" for lost in unreadable.all), "")

    return why


def find_holders(workspace: Workspace, unreadable: UnreadableRecords) -> Callable[[str, str], tuple[str, ...]]:
    """Which nodes hold which version complete, by the records in the catalog; see `doors.Replicas`."""
    return holders(read_nodes(workspace.catalog, unreadable), record_timeout(workspace.settings))


def holders(records: Iterable[NodeRecord], timeout: float) -> Callable[[str, str], tuple[str, ...]]:
    """Which nodes hold which version complete, by those of the records that are current."""
    names: dict[tuple[str, str], list[str]] = {}
    time = now()
    for record in records:
        for held in record.versions if record.is_current(time, timeout) else ():
            if held.is_complete:
                names.setdefault((held.dataset, held.digest), []).append(record.name)
    return lambda dataset, digest: tuple(names.get((dataset, digest), ()))
