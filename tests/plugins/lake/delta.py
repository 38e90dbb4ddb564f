"""Delta tables whose log is written by hand, with any fsspec file system: set-up that goes round deltalake."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SCHEMA = {"type": "struct", "fields": [{"name": "x", "type": "long", "nullable": True, "metadata": {}}]}


class HandWritten:
    """A table whose files may hold anything, since only its log is read as Delta.

    Args:
        files: An fsspec file system.
        root: The table's folder, by its names.
        features: The table's reader features, `deletionVectors` for one.
    """

    def __init__(self, files: Any, root: str, features: tuple[str, ...] = ()) -> None:
        self._files, self._root = files, root.rstrip("/")
        self._version = -1
        protocol: dict[str, Any] = {"minReaderVersion": 1, "minWriterVersion": 2}
        if features:
            both = {"readerFeatures": features, "writerFeatures": features}
            protocol = {"minReaderVersion": 3, "minWriterVersion": 7, **both}
        described = {"id": "by-hand", "format": {"provider": "parquet", "options": {}}, "partitionColumns": []}
        meta = {**described, "schemaString": json.dumps(SCHEMA), "configuration": {}, "createdTime": 0}
        self.commit({"protocol": protocol}, {"metaData": meta})

    def put(self, key: str, data: bytes, **facts: Any) -> None:
        """Write a file and a version that has it; `facts` go into its add action."""
        self._files.makedirs(f"{self._root}/{key}".rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(f"{self._root}/{key}", data)
        self.append({key: len(data)}, **facts)

    def append(self, sizes: Mapping[str, int], **facts: Any) -> None:
        """Write a version that has these files too, which lie in the table's folder already."""
        info = {"partitionValues": {}, "modificationTime": time.time_ns() // 1_000_000, "dataChange": True, **facts}
        self.commit(*({"add": {"path": quote(key), "size": size, **info}} for key, size in sizes.items()))

    def remove(self, key: str) -> None:
        """Write a version without a file, and delete that, as VACUUM would."""
        self.commit({"remove": {"path": quote(key), "deletionTimestamp": 1, "dataChange": True}})
        self._files.rm_file(f"{self._root}/{key}")

    def commit(self, *actions: dict[str, Any]) -> None:
        """Write the next version."""
        self._version += 1
        info = {"commitInfo": {"timestamp": time.time_ns() // 1_000_000, "operation": "WRITE"}}
        lines = "\n".join(json.dumps(action) for action in (info, *actions))
        self._files.makedirs(f"{self._root}/_delta_log", exist_ok=True)
        self._files.pipe_file(f"{self._root}/_delta_log/{self._version:020}.json", lines.encode())
