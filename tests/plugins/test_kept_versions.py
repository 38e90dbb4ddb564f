"""What other plugins keep from expiring: versions that runs used, and one because of which a target is held."""

from __future__ import annotations

from pathlib import Path

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import pin, unpin
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.nodes import HeldVersion, NodeRecord, put_node
from prefect_stagegate.plugins.retention.expire import expire
from prefect_stagegate.plugins.runs.use_records import TrackedRun, UseBegun, record_begun
from prefect_stagegate.plugins.watch.watch_records import HOLDS, Hold
from prefect_stagegate.unreadable import UnreadableRecords
from tests.support.records import CountedRecords
from tests.support.scenario import ADA, Scenario


def kept(scenario: Scenario) -> dict[str, str]:
    fates = expire(scenario.node(), ["things"], UnreadableRecords(), dry_run=True)
    return {fate.digest: "; ".join(fate.kept_by) for fate in fates if fate.kept_by}


def test_runs_and_holds_keep_versions(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates={"production": {"require": ["license"]}}, retain={"newest": 1})
    used, failed, plain, _ = (scenario.deliver(f"a\n{number}\n").digest for number in range(4))
    node = scenario.node()
    use = UseBegun(TrackedRun("mlflow", "3f2a"), "latest", "ada", "gpu-1", stamp(now()))
    record_begun(node.catalog, "things", used, use)
    held = Hold(is_held=True, why="loss went up", digest=failed, who=ADA, at=stamp(now()))
    node.catalog.add(HOLDS, held, "things", "production")
    assert kept(scenario)[used] == "1 run used it"
    assert kept(scenario)[failed] == "production is held: loss went up"
    assert plain not in kept(scenario)


def test_policy_may_do_without_what_runs_used(tmp_path: Path) -> None:
    keys = {"newest": 1, "used": False}
    scenario = Scenario(tmp_path, gates={"production": {"require": ["license"]}}, retain=keys)
    used, _ = (scenario.deliver(f"a\n{number}\n").digest for number in range(2))
    use = UseBegun(TrackedRun("mlflow", "3f2a"), "latest", "ada", "gpu-1", stamp(now()))
    record_begun(scenario.node().catalog, "things", used, use)
    assert used not in kept(scenario)


def test_pins_and_fetches_of_other_nodes_keep_versions(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates={"production": {"require": ["license"]}}, retain={"newest": 1})
    pinned, fetched, plain, _ = (scenario.deliver(f"a\n{number}\n").digest for number in range(4))
    other = scenario.node(cache="gpu-1")
    scenario.write("a\n0\n")
    stage(other, Address("things", pinned))
    assert pinned not in kept(scenario)
    pin(other, Address("things", pinned))
    fetching = HeldVersion("things", fetched, 4, missing=4, fetching=True)
    put_node(other.catalog, NodeRecord("gpu-2", stamp(now()), "/cache", (fetching,)))
    assert kept(scenario)[pinned].startswith("it is pinned on gpu-1, by the node's record of 20")
    assert kept(scenario)[fetched] == "gpu-2 fetches it"
    assert plain not in kept(scenario)
    put_node(other.catalog, NodeRecord("gpu-2", "2026-01-01T00:00:00.000000Z", "/cache", (fetching,)))
    unpin(other, Address("things", pinned))
    assert kept(scenario).keys().isdisjoint((pinned, fetched))
    (tmp_path / "catalog/nodes/gpu-2.json").write_text("{}")
    assert kept(scenario)[plain].startswith("a node's pins are not known: ")


def test_nodes_are_read_once_for_all_versions(tmp_path: Path) -> None:
    reads = []
    for nodes in (0, 5):
        (folder := tmp_path / str(nodes)).mkdir()
        scenario = Scenario(folder, gates={"production": {"require": ["license"]}}, retain={"newest": 1})
        for number in range(21):
            scenario.deliver(f"a\n{number}\n")
        node = scenario.node()
        for number in range(nodes):
            put_node(node.catalog, NodeRecord(f"gpu-{number}", stamp(now()), "/cache"))
        node.catalog.records = counted = CountedRecords(node.catalog.records)
        assert sum(fate.is_gone for fate in expire(node, ["things"], UnreadableRecords(), settling=0)) == 20
        reads.append(counted.calls)
    # Before the tombstones, and before the removals.
    assert {name: reads[1][name] - reads[0][name] for name in ("read", "list")} == {"read": 2 * 5, "list": 0}
