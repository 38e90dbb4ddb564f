"""An erasure on five nodes, of which one is down and one lies."""

from __future__ import annotations

from pathlib import Path

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.retention.erase_on_node import erase_on_node
from prefect_stagegate.plugins.retention.erasure import (
    NODE_ERASURES,
    NodeErasure,
    glob_of,
    plan_erasure,
    put_node_erasure,
    record_erasure,
)
from prefect_stagegate.plugins.retention.erasure_status import erasure_status
from prefect_stagegate.unreadable import UnreadableRecords
from tests.plugins.fleet.fleet import FleetNode
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

NODES = ("gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-5")


def test_record_says_which_nodes_proved_it(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates={"production": {"require": ["license"]}})
    (scenario.nas / "ada.csv").write_text("name\nada\n")
    scenario.write("a,b\n1,2\n")
    nodes = {name: scenario.node(cache=name) for name in NODES}
    digest = stage(nodes["gpu-1"], scenario.spec()).digest
    for node in nodes.values():
        stage(node, Address("things", digest))

    def standings() -> dict[str, str]:
        found = erasure_status(nodes["gpu-1"], "things", UnreadableRecords())
        return {each.node: each.standing.value for each in found}

    def blobs(name: str) -> int:
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file() and not path.is_symlink()]
        return sum(path.read_bytes() == b"name\nada\n" for path in files)

    assert all(blobs(name) for name in NODES)
    planned = plan_erasure(nodes["gpu-1"], "things", "", glob_of(("ada.csv",), ()))
    record_erasure(nodes["gpu-1"], "things", *planned, "consent withdrawn")
    assert standings() == dict.fromkeys(NODES, "no answer")
    for name in NODES[:3]:
        assert erase_on_node(nodes[name], "things")[-1].is_proved
    lie = NodeErasure(1, "gpu-5", is_proved=True, blobs=1, left=(), at=stamp(now()))
    put_node_erasure(nodes["gpu-5"].catalog, "things", lie)
    assert standings() == {**dict.fromkeys(NODES[:3], "proved"), "gpu-4": "no answer", "gpu-5": "contradicted"}
    assert [blobs(name) > 0 for name in NODES] == [False, False, False, True, True]
    for name in NODES[3:]:
        erase_on_node(nodes[name], "things")
    assert standings() == dict.fromkeys(NODES, "proved")
    assert not any(blobs(name) for name in NODES)


def test_running_agent_does_its_nodes_part(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates={"production": {"require": ["license"]}})
    (scenario.nas / "ada.csv").write_text("name\nada\n")
    scenario.deliver("a,b\n1,2\n")
    scenario.promote()
    node, catalog = FleetNode(tmp_path, "gpu-1", tmp_path / "catalog"), scenario.node().catalog

    def standings() -> dict[str, str]:
        found = erasure_status(scenario.node(), "things", UnreadableRecords())
        return {each.node: each.standing.value for each in found}

    env = {"STAGEGATE_NODE_TIMEOUT": "10"}  # the shortest: a round each 3.3 s
    with node.running("stagegate", "agent", "things@production", env=env) as process:
        assert eventually(lambda: node.cache.exists() and node.ref("things", "production"))
        planned = plan_erasure(scenario.node(), "things", "", glob_of(("ada.csv",), ()))
        record_erasure(scenario.node(), "things", *planned, "consent withdrawn")
        assert eventually(lambda: standings().get("gpu-1") == "proved"), node.log()
        assert process.poll() is None
    assert not [path for path in node.cache.rglob("*") if path.is_file() and path.read_bytes() == b"name\nada\n"]
    assert "things, erasure 1: 1 blob removed, nothing is left on this node" in node.log()
    assert len(catalog.names(NODE_ERASURES, "things")) == 1, "an agent answers once"
