"""The part of the catalog that keeps what each node says of itself. Records decide nothing and are replaced."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from prefect_stagegate.catalog.codec import decode, encode
from prefect_stagegate.catalog.typed_records import TypedRecords, corrupt
from prefect_stagegate.nodes import NodeRecord
from prefect_stagegate.unreadable import UnreadableRecords

READERS = 16
"""Records that are read at a time: a store answers one in milliseconds, and there may be a thousand."""
_FOLDER = "nodes/"


class NodeRecords(TypedRecords):
    """The records of nodes. Every method may raise `CatalogError`."""

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


def _key(name: str) -> str:
    return f"{_FOLDER}{name}.json"
