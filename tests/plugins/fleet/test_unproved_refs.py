"""A node whose ref somebody forged: its agent, its label in Kubernetes, its readiness."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import UnprovedEntry
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.kubernetes import label_key, publish_node
from prefect_stagegate.plugins.fleet.node_readiness import node_readiness
from tests.support.forging import AttackedScenario, signing_scenario

PRODUCTION = Address("things", "production")


@pytest.fixture
def forged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AttackedScenario:
    """A forged promotion after a proved one, whose version this node's copy names."""
    scenario = signing_scenario(tmp_path, monkeypatch)
    scenario.promote_and_forge()
    return scenario


def test_agent_follows_a_proved_entry_alone(forged: AttackedScenario) -> None:
    assert forged.run("agent", "--once", "things@production") == 3
    assert forged.run("path", "things@production") == 3
    other = forged.folder / "other"
    # From another node, so that nothing but the agent moves this node's copy.
    forged.on["cache"], cache = other, forged.on["cache"]
    first = forged.node().catalog.history("things", "production")[0].digest
    assert not forged.run("check", f"things@{first}", "--gate", "production")
    assert not forged.run("promote", f"things@{first}", "--to", "production")
    forged.on["cache"] = cache
    assert not forged.run("agent", "--once", "things@production")
    assert not forged.run("path", "things@production")


def test_kubernetes_node_loses_the_label_of_an_unproved_ref(forged: AttackedScenario) -> None:
    key = label_key("things", "production")
    labels: dict[str, str | None] = {key: "sha256-one"}

    class Api:
        """The Node in this process, since the servers of Kubernetes are built for `make test-kubernetes` only."""

        node = "vm"

        def read(self) -> dict[str, Any]:
            return {"metadata": {"labels": labels}, "status": {}}

        def patch_labels(self, changes: dict[str, str | None]) -> None:
            labels.update(changes)

        def patch_conditions(self, changes: list[dict[str, str]]) -> None:
            assert "can't be proved" in changes[0]["message"]

    publish_node(forged.node(), [PRODUCTION], Api(), print)  # type: ignore[arg-type]
    assert labels == {key: None}


def test_cache_that_can_t_be_written_keeps_the_error(forged: AttackedScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    node = forged.node()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("prefect_stagegate.cache.ref_copies.write_file", refuse)
    with pytest.raises(UnprovedEntry, match="Entry 2 of things@production"):
        node_readiness(node, PRODUCTION)
