"""A node, a catalog and a source that tests change: what tests of gates and runs start from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.cli import main
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, DecisionOutcome, Identity, Version
from prefect_stagegate.workspace import Workspace

ADA, INES = Identity("ada", "declared"), Identity("ines@example.org", "declared")
"""Who stages, checks and promotes; and who approves."""
OWNERS = dict.fromkeys(("data", "ai", "governance"), "team@example.org") | {"infra": INES.name}


class Scenario:
    """One node with its catalog, and a source folder that tests change.

    Args:
        folder: Holds the cache, the catalog, and the source in `nas`.
        dataset: The dataset's name.
        keys: Keys of the spec, over those that each scenario has.
    """

    def __init__(self, folder: Path, dataset: str = "things", **keys: Any) -> None:
        self.folder, self.dataset, self._keys = folder, dataset, keys
        self.on: dict[str, Any] = {"cache": folder / "cache", "catalog": folder / "catalog"}
        self.nas = folder / "nas"
        self.nas.mkdir(exist_ok=True)

    def node(self, who: Identity = ADA, cache: str | Path = "") -> Workspace:
        """Open the node as somebody, or another node by its cache: a path, or a name in the folder."""
        workspace = open_workspace(self.folder / (cache or self.on["cache"]), self.on["catalog"], identity=who)
        if not cache:
            return workspace
        # Two nodes of one name are refused.
        return replace(workspace, settings=replace(workspace.settings, node=Path(cache).name))

    def environment(self, **more: str) -> dict[str, str]:
        """Settings that name the cache and the catalog to a command."""
        return {"STAGEGATE_CACHE": str(self.on["cache"]), "STAGEGATE_CATALOG": str(self.on["catalog"]), **more}

    def run(self, *words: str, identity: str = ADA.name) -> int:
        """Run the command line as somebody; returns its exit code."""
        flags = ["--cache", self.on["cache"], "--catalog", self.on["catalog"], "--identity", identity]
        return exit_code([*words, *map(str, flags)])

    def spec(self, **changes: Any) -> dict[str, Any]:
        """The spec, with other keys."""
        keys = {"stagegate": 1, "dataset": self.dataset, "license": "CC0-1.0", "owners": OWNERS}
        return {**keys, "sources": [{"url": str(self.nas)}], **self._keys, **changes}

    def spec_file(self, name: str = "things.yaml", **changes: Any) -> Path:
        """The spec, with other keys, as a file."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(self.spec(**changes), sort_keys=False))
        return path

    def write(self, text: str) -> None:
        """Write the source's file."""
        (self.nas / "data.csv").write_text(text)

    def stage(self, **changes: Any) -> Version:
        """Stage what the source has."""
        return stage(self.node(), self.spec(**changes))

    def deliver(self, text: str, **changes: Any) -> Version:
        """Write the source's file, and stage."""
        self.write(text)
        return self.stage(**changes)

    def promote(self, *targets: str) -> str:
        """Check the newest version and promote it, to each target of the spec or to some; gives its digest.

        INES approves where a gate waits for somebody.
        """
        address = Address(self.dataset, self.head("latest"))
        for target in targets or self.spec()["gates"]:
            if check(self.node(), address, target).outcome is DecisionOutcome.WAITING:
                approve(self.node(INES), address, target, reason="seen")
                check(self.node(), address, target)
            promote(self.node(), address, target)
        return address.digest

    def head(self, ref: str) -> str:
        """The digest that a ref names; empty when there is no such ref."""
        entry = self.node().catalog.ref(self.dataset, ref)
        return entry.digest if entry else ""


def exit_code(words: list[str]) -> int:
    """Run the command line in this process; gives its exit code."""
    try:
        main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def dataset_name(request: pytest.FixtureRequest) -> str:
    """A dataset's name made of the test's, for tests that share a server."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[-50:].strip("-")
