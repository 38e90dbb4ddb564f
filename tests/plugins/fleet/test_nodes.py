"""Nodes: each says what it holds, and nobody counts on a node that does not say so, or said so too long ago."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from prefect_stagegate.cache.arrivals import Arrival
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.clock import moment, stamp
from prefect_stagegate.errors import CorruptRecord, ExitCode, NotReady, StagegateError
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.review.status import status
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import collect_garbage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.agent import run_agent
from prefect_stagegate.plugins.fleet.node_readiness import node_readiness, require_on_node, wait_until_ready
from prefect_stagegate.plugins.fleet.nodes import Placement, put_node, read_node, read_nodes, record_timeout
from prefect_stagegate.plugins.fleet.own_record import publish_record
from prefect_stagegate.plugins.fleet.placement import choose_node, find_version
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace
from tests.support.changed_settings import change_settings
from tests.support.scenario import Scenario

Run = Callable[..., CompletedProcess[str]]
LATEST = Address("things", "latest")


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    made = Scenario(tmp_path, gates={"pilot": {"require": ["nonempty"]}})
    made.write("a,b\n1,2\n")
    return made


def node(scenario: Scenario, name: str) -> Workspace:
    """A node of that name with a cache of its own."""
    workspace = scenario.node(cache=name)
    return replace(workspace, settings=replace(workspace.settings, node=name))


def states(workspace: Workspace, address: Address = LATEST) -> dict[str, Placement]:
    found = find_version(workspace, address, UnreadableRecords())
    return {placed.node: placed.placement for placed in found.nodes}


def run_once(workspace: Workspace, *addresses: Address) -> list[str]:
    lines: list[str] = []
    run_agent(workspace, addresses, report=lines.append, cancel=threading.Event(), once=True)
    return lines


def test_staging_tells_where_a_version_lies(scenario: Scenario) -> None:
    first, second = node(scenario, "gpu-1"), node(scenario, "gpu-2")
    version = stage(first, scenario.spec())
    run_once(second)
    assert states(first) == {"gpu-1": Placement.COMPLETE, "gpu-2": Placement.ABSENT}
    stage(second, Address.parse(version.address))
    assert states(first) == {"gpu-1": Placement.COMPLETE, "gpu-2": Placement.COMPLETE}


def namesake(workspace: Workspace, scenario: Scenario, **settings: Any) -> Workspace:
    """Another node of the same name."""
    return replace(scenario.node(cache="namesake"), settings=change_settings(workspace, **settings).settings)


def test_second_node_of_a_name_is_refused(scenario: Scenario) -> None:
    first = node(scenario, "gpu-1")
    stage(first, scenario.spec())
    (line, *_) = run_once(namesake(first, scenario))
    assert "Another node is called gpu-1, with another cache at " in line
    assert "STAGEGATE_NODE" in line
    record = read_node(first.catalog, "gpu-1")
    assert record is not None
    assert record.cache == str(first.cache.root)
    publish_record(first)


def test_name_of_a_node_that_is_gone_is_free(scenario: Scenario) -> None:
    first = node(scenario, "gpu-1")
    stage(first, scenario.spec())
    record = publish_record(namesake(first, scenario, node_timeout=0.0))
    assert not record.versions
    assert read_node(first.catalog, "gpu-1") == record


def test_record_of_a_node_with_several_caches_is_read(scenario: Scenario) -> None:
    workspace = node(scenario, "gpu-1")
    stage(workspace, scenario.spec())
    file = Path(workspace.catalog.url) / "nodes/gpu-1.json"
    volume = {"folder": "/nvme1", "medium": "nvme", "used": 9, "room": 9, "limit": None, "problem": ""}
    file.write_text(json.dumps({**json.loads(file.read_text()), "volumes": [volume]}))
    assert states(workspace) == {"gpu-1": Placement.COMPLETE}
    assert not publish_record(workspace).volumes


def test_record_of_an_earlier_release_is_replaced(scenario: Scenario) -> None:
    first = node(scenario, "gpu-1")
    put_node(first.catalog, replace(publish_record(first), identity=""))
    assert publish_record(namesake(first, scenario)).identity


def test_collected_version_is_not_counted_on(scenario: Scenario) -> None:
    workspace = node(scenario, "gpu-1")
    old = stage(workspace, scenario.spec())
    scenario.write("a,b\n3,4\n")
    stage(workspace, scenario.spec())
    collect_garbage(workspace)
    assert states(workspace, Address("things", old.digest)) == {"gpu-1": Placement.ABSENT}
    assert states(workspace) == {"gpu-1": Placement.COMPLETE}


def test_earlier_name_of_nodes_works_with_a_note(run_stagegate: Run) -> None:
    done = run_stagegate("where", "--help")
    assert "`where` is now `nodes`" in done.stderr
    assert "Usage:" in done.stdout


def test_command_gc_tells_what_is_gone(scenario: Scenario, run_stagegate: Run) -> None:
    env = scenario.environment(STAGEGATE_NODE="gpu-1") | {"STAGEGATE_CACHE": str(scenario.folder / "gpu-1")}
    old = stage(node(scenario, "gpu-1"), scenario.spec())
    for workspace in (scenario.node(), node(scenario, "gpu-1")):
        stage(workspace, scenario.spec())
    scenario.write("a,b\n3,4\n")
    assert run_stagegate("stage", str(scenario.spec_file()), env=env).returncode == 0
    assert run_stagegate("gc", env=env).returncode == 0
    found = json.loads(run_stagegate("nodes", f"things@{old.digest}", "--json", env=env).stdout)
    assert {placed["node"]: placed["placement"] for placed in found["nodes"]}["gpu-1"] == "absent"


def test_version_of_another_catalog_is_left_out(scenario: Scenario) -> None:
    other = Scenario(scenario.folder, "others")
    other.on["catalog"] = scenario.folder / "another-catalog"
    other.write("a,b\n1,2\n")
    stage(node(other, "gpu-1"), other.spec())
    version = stage(node(scenario, "gpu-1"), scenario.spec())
    record = read_node(scenario.node().catalog, "gpu-1")
    assert record
    assert [held.digest for held in record.versions] == [version.digest]
    assert record.version("others", version.digest) is None


def test_interrupted_fetch_is_partial_with_its_missing_bytes(scenario: Scenario) -> None:
    for number in range(3):
        (scenario.nas / f"{number}.csv").write_text(f"a,b\n{number},9\n")
    first, second = node(scenario, "gpu-1"), node(scenario, "gpu-2")
    version = stage(first, scenario.spec())
    (scenario.nas / "1.csv").unlink()
    with pytest.raises(StagegateError):
        stage(second, LATEST)
    found = find_version(first, LATEST, UnreadableRecords())
    placed = {placed.node: placed for placed in found.nodes}["gpu-2"]
    assert placed.placement is Placement.PARTIAL
    assert 8 <= placed.missing < version.bytes
    assert not placed.fetching


def test_old_record_is_unknown_and_never_chosen(scenario: Scenario) -> None:
    workspace = node(scenario, "gpu-1")
    stage(workspace, scenario.spec())
    assert choose_node(workspace, LATEST).node == "gpu-1"
    record = read_node(workspace.catalog, "gpu-1")
    assert record
    age = timedelta(seconds=record_timeout(workspace.settings) + 1)
    put_node(workspace.catalog, replace(record, at=stamp(moment(record.at) - age)))
    assert states(workspace) == {"gpu-1": Placement.UNKNOWN}
    with pytest.raises(NotReady, match="gpu-1: unknown"):
        choose_node(workspace, LATEST)


def test_record_of_another_node_is_refused(scenario: Scenario) -> None:
    workspace = node(scenario, "gpu-1")
    stage(workspace, scenario.spec())
    records = Path(workspace.catalog.url) / "nodes"
    (records / "gpu-9.json").write_bytes((records / "gpu-1.json").read_bytes())
    (records / "gpu-8.json").write_text("no record")
    with pytest.raises(CorruptRecord, match="another node"):
        read_node(workspace.catalog, "gpu-9")
    unreadable = UnreadableRecords()
    assert [record.name for record in read_nodes(workspace.catalog, unreadable)] == ["gpu-1"]
    assert len(unreadable.all) == 2


@pytest.mark.parametrize(
    ("key", "value"), [("at", "yesterday"), ("at", "9999-12-31T23:59:59-23:00"), ("room", 10**400)]
)
def test_record_that_says_nonsense_hides_no_other_node(scenario: Scenario, key: str, value: object) -> None:
    workspace = node(scenario, "gpu-1")
    stage(workspace, scenario.spec())
    records = Path(workspace.catalog.url) / "nodes"
    record = json.loads((records / "gpu-1.json").read_text())
    (records / "gpu-9.json").write_text(json.dumps({**record, "name": "gpu-9", key: value}))
    assert states(workspace) == {"gpu-1": Placement.COMPLETE}
    unreadable = UnreadableRecords()
    find_version(workspace, LATEST, unreadable)
    assert "nodes/gpu-9.json has a time or number that can't be used" in unreadable.all[0].problem


def test_only_candidates_are_chosen(scenario: Scenario) -> None:
    first, second = node(scenario, "gpu-1"), node(scenario, "gpu-2")
    stage(first, scenario.spec())
    stage(second, LATEST)
    assert choose_node(first, LATEST, ["gpu-2"]).node == "gpu-2"
    with pytest.raises(NotReady, match="No node of gpu-3 holds things@sha256"):
        choose_node(first, LATEST, ["gpu-3"])


def test_message_without_a_place_names_few_nodes(scenario: Scenario) -> None:
    workspace = node(scenario, "gpu-1")
    stage(workspace, scenario.spec())
    with pytest.raises(NotReady, match=r"No node of .*, gpu-0019, 980 more holds things") as refused:
        choose_node(workspace, LATEST, [f"gpu-{number:04}" for number in range(1000)])
    assert "gpu-1: complete" not in refused.value.message


def test_record_dated_ahead_says_so(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = node(scenario, "gpu-1")
    record = publish_record(workspace)
    put_node(workspace.catalog, replace(record, at=stamp(moment(record.at) + timedelta(minutes=20, seconds=30))))
    scenario.run("nodes")
    assert "unknown, dated 20 min ahead" in capsys.readouterr().out


def promoted(scenario: Scenario) -> str:
    scenario.stage()
    return scenario.promote("pilot")


def test_ready_only_where_the_target_s_version_lies(scenario: Scenario) -> None:
    gpu = node(scenario, "gpu-1")
    pilot = Address("things", "pilot")
    first = promoted(scenario)
    with pytest.raises(NotReady, match="gpu-1: this node lacks sha256"):
        require_on_node(gpu, pilot)
    assert run_once(gpu, pilot)[0].startswith(f"things@pilot is {first}")
    assert require_on_node(gpu, pilot).digest == first
    scenario.write("a,b\n3,4\n")
    second = promoted(scenario)
    with pytest.raises(NotReady, match="this node lacks"):
        require_on_node(gpu, pilot)
    # The bytes are here by another way, but this node's ref, which its readers follow, still names the old version.
    stage(gpu, Address("things", second))
    with pytest.raises(NotReady, match="this node's pilot names"):
        require_on_node(gpu, pilot)
    # Without an address the agent follows the targets that it has copies of.
    run_once(gpu)
    assert require_on_node(gpu, pilot).digest == second


def test_arriving_version_is_not_ready_yet(scenario: Scenario) -> None:
    gpu, pilot, locks = node(scenario, "gpu-1"), Address("things", "pilot"), list[int]()
    digest = promoted(scenario)
    assert Arrival(gpu.cache.layout, digest).start(lambda lock: locks.append(os.dup(lock)))
    with pytest.raises(NotReady, match=r"is arriving, 0%"):
        require_on_node(gpu, pilot)
    os.close(locks[0])  # as its process ends
    with pytest.raises(NotReady, match="arriving stopped at 0%: the process that fetched it ended"):
        require_on_node(gpu, pilot)


def test_withdrawn_version_is_not_ready(scenario: Scenario) -> None:
    workspace = scenario.node()
    first = promoted(scenario)
    scenario.write("a,b\n3,4\n")
    second = promoted(scenario)
    rollback(workspace, Address("things", "pilot"), to=first, reason="wrong units")
    assert node_readiness(workspace, Address("things", "pilot")).digest == first
    assert node_readiness(workspace, Address("things", second)).is_ready


def test_rotten_file_is_not_ready_until_repaired(scenario: Scenario) -> None:
    workspace = node(scenario, "gpu-1")
    version = stage(workspace, scenario.spec())
    rotten = version.path / "data.csv"
    rotten.chmod(0o644)
    rotten.write_text("a,b\n1,3\n")
    rotten.chmod(0o444)
    verify(workspace)
    with pytest.raises(NotReady, match=r"data\.csv of sha256:\w+ rotted here"):
        require_on_node(workspace, LATEST)
    run_once(workspace)
    assert states(workspace) == {"gpu-1": Placement.PARTIAL}
    verify(workspace, repair=True)
    run_once(workspace)
    assert require_on_node(workspace, LATEST).path == str(version.path)
    assert states(workspace) == {"gpu-1": Placement.COMPLETE}


def damage(view: Path, how: str) -> str:
    """Damage a view as root in a container may; returns what is said of it."""
    view.chmod(0o755)
    file = view / "data.csv"
    file.chmod(0o644)
    text = file.read_text()
    if how == "removed":
        file.unlink()
    elif how == "replaced":
        (view / "new").write_text(text.replace("1", "7"))
        (view / "new").rename(file)
    elif how == "linked":
        file.unlink()
        file.symlink_to("/etc/hostname")
    elif how == "extra":
        (view / "extra.csv").write_text("a,b\n9,9\n")
    else:
        file.write_text({"cut": "a,b\n", "grown": text + "7,8\n", "overwritten": text.replace("1", "7")}[how])
    return {
        "removed": "data.csv of things@sha256.* is damaged: it can't be found",
        "linked": "it is not a regular file",
        "cut": "it has 4 bytes, and the manifest says 8",
        "grown": "it has 12 bytes, and the manifest says 8",
        "extra": "extra.csv of things@sha256.* is damaged: the version has no such file",
    }.get(how, "it was written to after it was stored")


@pytest.mark.parametrize("how", ["removed", "replaced", "linked", "cut", "grown", "overwritten", "extra"])
def test_damaged_view_is_not_ready_until_repaired(scenario: Scenario, how: str) -> None:
    workspace = node(scenario, "gpu-1")
    version = stage(workspace, scenario.spec())
    said = damage(version.path, how)
    # Who reads it meanwhile hides nothing.
    workspace.cache.views.touch("things", version.digest)
    with pytest.raises(NotReady, match=said) as refused:
        require_on_node(workspace, LATEST)
    assert "stagegate verify things@sha256:" in refused.value.hint
    assert len(verify(workspace, Address("things", version.digest), repair=True).damaged) == 1
    assert require_on_node(workspace, LATEST).path == str(version.path)
    assert [path.name for path in version.path.iterdir()] == ["data.csv"]
    assert verify(workspace, LATEST).damaged == ()


def test_touched_file_is_ready_again_once_verified(scenario: Scenario) -> None:
    workspace = node(scenario, "gpu-1")
    version = stage(workspace, scenario.spec())
    os.utime(version.path / "data.csv")
    with pytest.raises(NotReady, match="written to after it was stored"):
        require_on_node(workspace, LATEST)
    verify(workspace, LATEST, repair=True)
    assert require_on_node(workspace, LATEST).is_ready


def test_view_of_an_earlier_release_is_ready(scenario: Scenario) -> None:
    workspace = node(scenario, "gpu-1")
    version = stage(workspace, scenario.spec())
    version.path.with_name(version.path.name + ".sealed").unlink()
    assert require_on_node(workspace, LATEST).is_ready
    collect_garbage(workspace)
    assert require_on_node(workspace, LATEST).is_ready


def test_wait_ends_when_the_agent_has_fetched(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.fleet.node_readiness.POLL_SECONDS", 0.05)
    home, gpu = scenario.node(), node(scenario, "gpu-1")
    version = stage(home, scenario.spec())
    reasons: list[str] = []
    fetching = threading.Timer(0.3, run_once, (gpu, LATEST))
    fetching.start()
    found = wait_until_ready(lambda: gpu, LATEST, 60, reasons.append)
    fetching.join()
    assert found.digest == version.digest
    assert any("lacks" in reason for reason in reasons)
    with pytest.raises(NotReady):
        wait_until_ready(lambda: node(scenario, "gpu-2"), LATEST, 0.1)


def test_wait_goes_on_while_the_catalog_is_away(scenario: Scenario, run_stagegate: Run) -> None:
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    env = scenario.environment(STAGEGATE_CATALOG="s3://catalog/", **nobody)
    ended = run_stagegate("ready", "things@latest", "--wait", "--timeout", "2s", env=env)
    assert ended.returncode == ExitCode.ERROR
    assert ended.stderr.startswith("waiting: Connection refused by 127.0.0.1:1")


def test_timeout_that_is_no_duration_is_bad_usage(run_stagegate: Run) -> None:
    ended = run_stagegate("ready", "things@latest", "--wait", "--timeout", "soon")
    assert ended.returncode == ExitCode.USAGE
    assert "'soon' is not a duration" in ended.stderr


def test_staging_keeps_the_environment_that_an_agent_recorded(scenario: Scenario) -> None:
    home = scenario.node()

    def environment() -> str:
        stage(home, scenario.spec())
        record = read_node(home.catalog, home.settings.node)
        assert record
        return record.environment

    assert environment() == ""
    recorded = publish_record(home, recapture=True).environment
    scenario.write("a,b\n3,4\n")
    assert environment() == recorded != ""


def test_agent_fetches_the_others_when_one_fails(scenario: Scenario) -> None:
    home, gpu = scenario.node(), node(scenario, "gpu-1")
    stage(home, scenario.spec())
    lines = run_once(gpu, Address("nothing", "pilot"), LATEST)
    assert "nothing@pilot could not be fetched" in lines[0]
    assert states(home)["gpu-1"] is Placement.COMPLETE


def test_agent_ends_soon_and_fetches_what_moves(scenario: Scenario) -> None:
    home = scenario.node()
    stage(home, scenario.spec())
    env = scenario.environment(
        STAGEGATE_NODE="gpu-1", STAGEGATE_NODE_TIMEOUT="10", STAGEGATE_CACHE=str(scenario.folder / "gpu-1")
    )
    command = [str(Path(sys.executable).with_name("stagegate")), "agent", "things@latest"]
    with subprocess.Popen(command, env={"PATH": "/usr/bin:/bin", "HOME": str(scenario.folder), **env}) as agent:
        try:
            gpu = node(scenario, "gpu-1")
            wait_until_ready(lambda: gpu, LATEST, 60)
            scenario.write("a,b\n3,4\n")
            moved = stage(home, scenario.spec())
            assert wait_until_ready(lambda: gpu, LATEST, 60).digest == moved.digest
        finally:
            agent.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert agent.wait(30) == 143
    assert time.monotonic() - began < 5


def test_inbox_names_nodes_that_hold_the_accepted_version(scenario: Scenario) -> None:
    scenario.stage()
    scenario.promote()
    record = publish_record(scenario.node())
    (standing,) = status(scenario.node(), "", UnreadableRecords())
    held = [line.accepted.held_by for line in standing.lines if line.accepted]
    assert held == [(record.name,)]


def test_huge_record_on_s3_is_refused_before_its_body(seaweedfs: SeaweedFS) -> None:
    url = seaweedfs.bucket("huge-records") + "/catalog"
    catalog = Catalog.open(url, seaweedfs.storage_options)
    seaweedfs.client().pipe(f"{url}/nodes/gpu-1.json", bytes(5 << 20))
    unreadable = UnreadableRecords()
    assert read_nodes(catalog, unreadable) == []
    assert "nodes/gpu-1.json can't be read: it has 5,242,880 bytes" in unreadable.all[0].problem


@pytest.mark.parametrize("words", [["nodes"], ["nodes", "things"]])
def test_lists_of_nodes_load_no_staging(tmp_path: Path, words: list[str]) -> None:
    Catalog.open(str(tmp_path / "catalog"))
    script = (
        "import sys; from prefect_stagegate.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('prefect_stagegate.jobs.staging.stage' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, *words, "--cache", str(tmp_path), "--catalog", str(tmp_path / "catalog")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "False"
