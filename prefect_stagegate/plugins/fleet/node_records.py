"""The part of the catalog that keeps what nodes say of themselves. Records decide nothing and are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from prefect_stagegate.catalog.codec import decode, encode
from prefect_stagegate.catalog.records import corrupt
from prefect_stagegate.catalog.typed_records import TypedRecords
from prefect_stagegate.clock import moment
from prefect_stagegate.plugins.fleet.nodes import FleetMember, NodeRecord
from prefect_stagegate.unreadable import UnreadableRecords

READERS = 32
"""Records that are read at a time: S3 answers one in 20 ms, and there may be a thousand."""
_FOLDER = "nodes/"


@dataclass(frozen=True, slots=True)
class _Fleet:
    dataset: str
    digest: str
    members: tuple[FleetMember, ...]


class NodeRecords(TypedRecords):
    """The records of nodes and fleets. Every method may raise `CatalogError`."""

    def put_node(self, record: NodeRecord) -> None:
        """Store a node's record over its last one."""
        self._records.replace(_key(record.name), encode(record))

    def node(self, name: str) -> NodeRecord | None:
        """The newest record of a node; None for a node that never wrote one.

        Raises:
            CorruptRecord: The record is damaged, or another node's.
        """
        data = self._records.read(_key(name))
        if data is None:
            return None
        record = decode(NodeRecord, data, _key(name))
        if record.name != name:
            raise corrupt(_key(name), "is about another node")
        try:
            moment(record.at)
            encode(record)
        except (ValueError, TypeError) as error:
            # Every list of nodes reads all records: one that nobody can show or compare must not end it.
            raise corrupt(_key(name), f"has a time or number that can't be used: {error}") from error
        return record

    def nodes(self, unreadable: UnreadableRecords) -> list[NodeRecord]:
        """The newest record of each node, sorted by name. `unreadable` collects those that can't be read."""
        names = [key.removeprefix(_FOLDER).removesuffix(".json") for key in self._records.keys(_FOLDER)]

        def read(name: str) -> NodeRecord | None:
            with unreadable.skip(""):
                return self.node(name)
            return None

        with ThreadPoolExecutor(READERS, "stagegate-nodes") as pool:
            return [record for record in pool.map(read, names) if record]

    def put_fleet(self, dataset: str, digest: str, members: Sequence[FleetMember]) -> None:
        """Replace the record of the nodes that fetch a version together."""
        self._records.replace(self._fleet_key(dataset, digest), encode(_Fleet(dataset, digest, tuple(members))))

    def fleet(self, dataset: str, digest: str) -> tuple[FleetMember, ...]:
        """The nodes that fetched a version together last; none without such a record.

        Raises:
            CorruptRecord: The record is damaged, or another version's.
        """
        key = self._fleet_key(dataset, digest)
        data = self._records.read(key)
        if data is None:
            return ()
        record = decode(_Fleet, data, key)
        if (record.dataset, record.digest) != (dataset, digest):
            raise corrupt(key, "is about another version")
        return record.members

    def _fleet_key(self, dataset: str, digest: str) -> str:
        return self._key(dataset, "fleets", digest, ".json")


def _key(name: str) -> str:
    return f"{_FOLDER}{name}.json"
