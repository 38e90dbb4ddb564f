"""The nodes, the catalog and the source, as all processes know them: told by one JSON file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect_stagegate.gate import known_checks
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.model import Identity
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.workspace import Workspace
from soak.truth import VERDICT

DATASETS = {"north": [0, 1, 2], "east": [2, 3, 4], "south": [4, 5, 0], "west": [1, 3, 5]}
"""Each takes three of six folders, so that versions of different datasets share blobs."""
PILOT = "pilot"
WIDE, TIGHT, NEW = "wide", "tight", "new"
LIMIT = 64 << 20
"""Bytes that a node without a small volume may hold: the least that the setting takes."""
SETTINGS = {
    "STAGEGATE_PART_SIZE": "64KiB",
    "STAGEGATE_MEMORY": "1MiB",
    "STAGEGATE_OBJECTS_IN_FLIGHT": "8",
    "STAGEGATE_FREE_FLOOR": "0%",
    "STAGEGATE_IDLE_TIMEOUT": "2",
    "STAGEGATE_PROCESSES": "3",
}


@dataclass(frozen=True)
class Site:
    """Where everything is."""

    root: str
    endpoint: str
    bucket: str
    key: str
    secret: str
    limits: dict[str, int]
    """Bytes that the nodes' caches may hold; a node with a small volume of its own has none."""

    @classmethod
    def load(cls, path: Path) -> Site:
        """The opposite of `save`."""
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """Write it down for other processes."""
        path.write_text(json.dumps(asdict(self)))

    def cache(self, node: str) -> Path:
        """A node's cache."""
        return Path(self.root, "nodes", node, "cache")

    @property
    def catalog(self) -> Path:
        """The catalog that the nodes share."""
        return Path(self.root, "catalog")

    @property
    def stop(self) -> Path:
        """Stands when workers are to end."""
        return Path(self.root, "stop")

    @property
    def scratch(self) -> Path:
        """Where workers make temporary files."""
        return Path(self.root, "scratch")

    def open(self, node: str) -> Workspace:
        """Open a node's cache and the catalog, under the node's settings."""
        limit = {"STAGEGATE_MAX_SIZE": str(self.limits[node])} if node in self.limits else {}
        os.environ.pop("STAGEGATE_MAX_SIZE", None)
        os.environ.update({"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, **SETTINGS, **limit})
        return open_workspace(self.cache(node), self.catalog, identity=Identity("soak", "declared"))

    def spec(self, dataset: str) -> Spec:
        """What is staged as a dataset."""
        sources: list[dict[str, Any]] = [
            {"url": f"{self.bucket}/{folder}/", "into": f"{folder}/", "options": {"endpoint_url": self.endpoint}}
            for folder in DATASETS[dataset]
        ]
        return load_spec(
            {
                "stagegate": 1,
                "dataset": dataset,
                "sources": sources,
                "contract": {"files": [{"match": f"*/{VERDICT}", "probes": ["nonempty"]}]},
                "gates": {PILOT: {"require": ["coverage"]}},
            },
            known_checks=known_checks(),
        )
