"""Several volumes of one node: a version lies on one of them, refs are the node's, and memory is a tier above disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from threading import Event
from typing import Any

import pytest

import prefect_stagegate
from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.space import used_bytes
from prefect_stagegate.errors import CacheError, Cancelled, NoSpace, UnknownRef, UsageError
from prefect_stagegate.http import Client, Request, fetch
from prefect_stagegate.model import Action, Address, Version
from prefect_stagegate.mounts import MEMORY, mount_of
from prefect_stagegate.operations.address import read_spec
from prefect_stagegate.operations.fleet import agent
from prefect_stagegate.operations.fleet.node_readiness import node_readiness
from prefect_stagegate.operations.fleet.own_record import publish_record
from prefect_stagegate.operations.inspect import list_versions
from prefect_stagegate.operations.monitoring.families import Sample
from prefect_stagegate.operations.monitoring.node_state import node_samples
from prefect_stagegate.operations.read import hold_dataset, locate, open_cache, open_dataset
from prefect_stagegate.operations.staging.stage import preview, stage
from prefect_stagegate.operations.upkeep.maintain import collect_garbage, pin, unpin
from prefect_stagegate.operations.upkeep.verify import verify
from prefect_stagegate.operations.workspace import Workspace, open_workspace, reopen_volumes
from prefect_stagegate.settings import VolumeSetting
from prefect_stagegate.transfer.progress import Progress
from tests.support.site import blob_server

Run = Callable[..., CompletedProcess[str]]
LATEST = Address("things", "latest")
SIZE = 2 << 20
"""Bytes of one file: more than one chunk of a copy."""


class Node:
    """A node with a home, a second disk and a folder in memory; and a source."""

    def __init__(self, folder: Path, memory: Path) -> None:
        self.nas, self.home, self.disk, self.memory = folder / "nas", folder / "home", folder / "disk", memory
        self.nas.mkdir()
        self.disk.mkdir()
        self.write("a", "b")

    def write(self, *names: str) -> None:
        """Let the source have exactly these files."""
        there = {path.name for path in self.nas.iterdir()}
        for name in there - {*names}:
            (self.nas / name).unlink()
        # A file that stays keeps its inode, and so its pin.
        for name in {*names} - there:
            (self.nas / name).write_bytes(name.encode() * SIZE)
            os.utime(self.nas / name, (1_000_000, 1_000_000))

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name the volumes and the catalog to a command."""
        return {name: text for name, text in os.environ.items() if name.startswith("STAGEGATE_")}

    def open(self, **limits: int) -> Workspace:
        """The workspace; `limits` are the quotas of `home`, `disk` and `memory`. The home has most."""
        workspace, limits = open_workspace(), {"home": 64 * SIZE, "disk": 32 * SIZE, "memory": 32 * SIZE} | limits
        volumes = (VolumeSetting(self.disk, limits["disk"]), VolumeSetting(self.memory, limits["memory"]))
        settings = replace(workspace.settings, volumes=volumes, max_size=limits["home"], free_floor=0.0)
        return replace(workspace, settings=settings)

    def spec(self, dataset: str = "things") -> dict[str, Any]:
        """The spec of a dataset of all files of the source."""
        return {"stagegate": 1, "dataset": dataset, "sources": [{"url": str(self.nas)}]}

    def stage(self, volume: Path | None = None, dataset: str = "things", **limits: int) -> Version:
        """Make a version of what the source has now."""
        return stage(self.open(**limits), self.spec(dataset), volume=volume)

    def copy(self, version: Version, volume: Path, **limits: int) -> Version:
        """Bring a version to a volume."""
        return stage(self.open(**limits), Address(version.dataset, version.digest), volume=volume)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    shared = Path("/dev/shm")
    if mount_of(shared)[0] not in MEMORY:
        pytest.fail("/dev/shm is not in memory here")
    memory = Path(tempfile.mkdtemp(dir=shared))
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "home"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("STAGEGATE_VOLUMES", f"{tmp_path / 'disk'},{memory / 'cache'}")
    yield Node(tmp_path, memory / "cache")
    shutil.rmtree(memory, ignore_errors=True)


def views(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("views/*/*") if path.is_dir()}


def name(version: Version) -> str:
    return version.digest.removeprefix("sha256:")


def rot(folder: Path) -> None:
    """Change a byte of each blob of a volume."""
    for blob in folder.glob("blobs/*/*"):
        blob.chmod(0o644)
        with blob.open("r+b") as file:
            file.write(b"!")
        blob.chmod(0o444)


def test_version_lies_on_one_volume_and_its_ref_is_the_nodes(node: Node, run_stagegate: Run) -> None:
    version = node.stage(node.disk)

    assert (views(node.home), views(node.disk)) == (set(), {name(version)})
    assert (version.volume, version.volume_reason) == (str(node.disk), "it was asked for")
    with open_dataset("things@latest") as held:
        assert held.path == node.disk / "views/things" / name(version)
    assert run_stagegate("path", "things@latest", env=node.environment).stdout.strip() == str(version.path)


def test_metrics_count_all_volumes(node: Node) -> None:
    version = node.stage(node.disk)
    node.copy(version, node.memory)
    rot(node.disk)
    verify(node.open(), Address("things", version.digest))
    workspace = node.open()

    with workspace.cache.volumes[1].leases.hold(LeaseKind.READER, "things", purpose="read"):
        samples = [sample for sample in node_samples(workspace.cache, workspace.settings) if isinstance(sample, Sample)]

    shown = {(sample.family.name, *sample.labels): sample.value for sample in samples}
    assert shown["stagegate_cache_versions", "things"] == 1
    assert shown["stagegate_cache_quarantined_blobs",] == 2
    assert shown["stagegate_cache_leases", "reader"] == 1
    # Of the disks: what is in memory is a copy.
    used, limit = shown["stagegate_cache_used_bytes",], shown["stagegate_cache_limit_bytes",]
    assert (used >= 2 * SIZE, limit) == (True, 96 * SIZE)
    assert shown["stagegate_cache_room_bytes",] <= limit - used


def test_next_version_goes_where_the_last_one_lies(node: Node) -> None:
    node.stage(node.disk)
    node.write("a", "b", "c")

    version = node.stage()

    assert version.path.is_relative_to(node.disk)
    assert version.volume_reason == "it holds the dataset's last version already"
    assert version.bytes_fetched == SIZE


def test_staging_goes_where_another_one_of_the_dataset_is(node: Node) -> None:
    with open_cache(create=True).volumes[1].leases.hold(LeaseKind.WRITER, "things", purpose="stage"):
        version = node.stage()
    assert (version.volume, version.volume_reason) == (
        str(node.disk),
        "another staging of the dataset is under way there",
    )


def test_memory_is_never_chosen_for_an_only_copy(node: Node) -> None:
    version = node.stage(home=8 * SIZE, disk=4 * SIZE)
    assert version.path.is_relative_to(node.home)
    assert version.volume_reason == f"it has most room: {8 * SIZE / 1e6:.1f} MB"
    assert node.memory.is_dir()


def test_copy_into_memory_needs_no_source(node: Node) -> None:
    version = node.stage(node.disk)
    shutil.rmtree(node.nas)

    copy = node.copy(version, node.memory)

    assert (copy.bytes_fetched, copy.bytes_reused) == (0, 2 * SIZE)
    with open_dataset("things@latest") as held:
        assert held.path == copy.path == node.memory / "views/things" / name(version)
        assert (held.path / "a").read_bytes() == b"a" * SIZE


def test_agent_stages_nothing_that_lies_on_another_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.stage(node.disk)
    monkeypatch.setattr(agent, "stage", None)
    assert agent.reconcile(node.open(), (LATEST,), print, Event())


def test_agent_brings_what_lies_in_memory_alone_to_a_disk(node: Node) -> None:
    version = node.stage(node.memory)
    assert agent.reconcile(node.open(), (LATEST,), print, Event())
    assert [volume.root for volume, _ in node.open().cache.copies(version.dataset, version.digest)] == [
        node.memory,
        node.home,
    ]


def test_reader_falls_back_to_a_disk_after_a_reboot(node: Node) -> None:
    version = node.stage(node.disk)
    node.copy(version, node.memory)
    shutil.rmtree(node.memory)

    with open_dataset("things@latest") as held:
        assert held.path == version.path
    assert not verify(node.open(), repair=True).damaged


def test_ref_that_moves_to_another_volume_is_seen_by_readers(node: Node) -> None:
    first = node.stage(node.disk)
    node.copy(first, node.memory)
    node.write("c")
    second = node.stage(node.home)

    assert locate(open_cache(), LATEST).path == second.path
    assert locate(open_cache(), Address("things", first.digest)).path.is_relative_to(node.memory)


def test_collection_keeps_on_each_volume_what_is_named_or_leased(node: Node) -> None:
    first = node.stage(node.disk)
    node.copy(first, node.memory)
    node.write("c")
    second = node.stage(node.disk)
    node.copy(second, node.memory)
    workspace = node.open()

    with hold_dataset(workspace.cache, Address("things", first.digest)) as held:
        assert held.path.is_relative_to(node.memory)
        collection = collect_garbage(workspace)

    assert collection.versions == (first.address,)
    assert (views(node.disk), views(node.memory)) == ({name(second)}, {name(first), name(second)})
    assert collect_garbage(workspace).versions == (first.address,)
    assert views(node.memory) == {name(second)}


def test_pinned_version_may_leave_memory_and_stays_on_the_disk(node: Node) -> None:
    first = node.stage(node.disk)
    node.copy(first, node.memory)
    address = Address("things", first.digest)
    pin(node.open(), address)
    node.write("c")
    second = node.stage(node.disk)

    collect_garbage(node.open())

    assert (views(node.disk), views(node.memory)) == ({name(first), name(second)}, set())
    assert unpin(node.open(), address) == 1


def test_volume_that_is_gone_is_named_and_stops_no_other(node: Node, run_stagegate: Run) -> None:
    version = node.stage(node.disk)
    other = node.stage(node.home, "others")
    node.disk.rename(node.disk.with_name("unplugged"))
    workspace = node.open()

    with pytest.raises(UnknownRef, match=f"the volume {node.disk} is missing: There is no folder"):
        locate(workspace.cache, LATEST)
    assert f"the volume {node.disk} is missing" in node_readiness(workspace, LATEST).problem
    assert f"the volume {node.disk} is missing: There is no folder {node.disk}" in collect_garbage(workspace).kept
    assert verify(workspace).versions == 1
    record = publish_record(workspace)
    assert [held.digest for held in record.versions if held.is_complete] == [other.digest]
    assert {volume.folder: bool(volume.problem) for volume in record.volumes} == {
        str(node.home): False,
        str(node.disk): True,
        str(node.memory): False,
    }
    assert f"the volume {node.disk} is missing" in run_stagegate("nodes", env=node.environment).stdout

    again = stage(workspace, LATEST)
    assert again.path == node.home / "views/things" / name(version)
    assert not node.disk.exists()


def test_volume_that_comes_back_is_noticed(node: Node) -> None:
    version = node.stage(node.disk)
    node.disk.rename(node.disk.with_name("unplugged"))
    workspace = node.open()
    node.disk.with_name("unplugged").rename(node.disk)

    reopen_volumes(workspace)

    assert locate(workspace.cache, LATEST).path == version.path


def test_volume_of_one_home_is_no_other_homes(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = node.stage(node.disk)
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "second-home"))
    workspace = node.open()

    assert str(node.disk) in str(workspace.cache.missing[0])
    assert "of another cache" in str(workspace.cache.missing[0])
    collect_garbage(workspace)
    assert views(node.disk) == {name(version)}


def test_further_volume_is_not_opened_as_a_home(node: Node) -> None:
    node.stage(node.disk)
    with pytest.raises(CacheError, match="is a further volume of a node"):
        Cache.open(node.disk)


def test_cache_with_versions_of_its_own_becomes_no_volume(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = stage(open_workspace(tmp_path / "old"), node.spec())
    monkeypatch.setenv("STAGEGATE_VOLUMES", str(tmp_path / "old"))

    workspace = open_workspace()

    assert "is a cache with versions and refs of its own" in workspace.cache.missing[0].problem
    assert Cache.open(tmp_path / "old").views.path("things", version.digest)


def test_volume_that_is_not_the_nodes_is_refused(node: Node, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no volume of this node's cache"):
        node.stage(tmp_path / "elsewhere")


def test_another_cache_than_the_settings_works_alone(node: Node, tmp_path: Path) -> None:
    node.stage(node.disk)
    assert open_workspace(tmp_path / "other").cache.volumes[1:] == ()


def test_existing_version_goes_where_it_fits(node: Node) -> None:
    version = node.stage()
    shutil.rmtree(node.home / "views")
    shutil.rmtree(node.home / "blobs")

    again = stage(node.open(home=SIZE, disk=4 * SIZE), Address("things", version.digest))

    assert again.path.is_relative_to(node.disk)
    assert again.volume_reason == f"it alone has room for {2 * SIZE / 1e6:.1f} MB"


def test_copy_beyond_a_quota_is_refused(node: Node) -> None:
    version = node.stage()
    with pytest.raises(NoSpace, match="the cache holds 0 B of its limit of"):
        node.copy(version, node.memory, memory=SIZE)
    assert used_bytes(open_cache().home.further[1].layout) == 0
    assert locate(open_cache(), LATEST).path == version.path


def test_named_version_leaves_memory_for_another_one(node: Node) -> None:
    first = node.stage()
    node.copy(first, node.memory, memory=3 * SIZE)
    node.write("c", "d")
    second = node.stage(None, "others")

    node.copy(second, node.memory, memory=3 * SIZE)

    assert views(node.memory) == {name(second)}
    assert locate(open_cache(), LATEST).path == first.path


def test_read_version_stays_in_memory(node: Node) -> None:
    first = node.stage()
    node.copy(first, node.memory, memory=3 * SIZE)
    node.write("c", "d")
    second = node.stage(None, "others")

    with open_dataset("things@latest") as held:
        assert held.path.is_relative_to(node.memory)
        with pytest.raises(NoSpace, match="In use: things@"):
            node.copy(second, node.memory, memory=3 * SIZE)


def test_named_version_that_lies_in_memory_alone_stays(node: Node, tmp_path: Path) -> None:
    node.stage(node.memory, memory=3 * SIZE)
    other = {"stagegate": 1, "dataset": "others", "sources": [{"url": str(tmp_path / "more")}]}
    (tmp_path / "more").mkdir()
    (tmp_path / "more/large").write_bytes(bytes(2 * SIZE))

    # Though its source still has it.
    with pytest.raises(NoSpace):
        stage(node.open(memory=3 * SIZE), other, volume=node.memory)
    assert locate(open_cache(), LATEST).path.is_relative_to(node.memory)


def test_version_in_memory_alone_is_brought_to_a_disk(node: Node) -> None:
    node.stage(node.memory)
    shutil.rmtree(node.nas)

    version = stage(node.open(), LATEST)

    assert (version.path.is_relative_to(node.home), version.bytes_fetched) == (True, 0)


def test_rotten_blobs_are_fetched_and_not_copied(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    version = node.stage(node.disk)
    rot(node.disk)

    copy = node.copy(version, node.memory)

    assert copy.bytes_fetched == 2 * SIZE
    assert (copy.path / "a").read_bytes() == b"a" * SIZE
    assert f"is not copied from {node.disk}: its {SIZE:,} bytes have another digest" in caplog.text


def test_repair_takes_sound_bytes_from_another_volume(node: Node) -> None:
    version = node.stage(node.disk)
    node.copy(version, node.memory)
    shutil.rmtree(node.nas)
    rot(node.disk)

    verified = verify(node.open(), LATEST, repair=True)

    assert (verified.versions, len(verified.damaged), verified.repaired) == (2, 2, True)
    assert {damage.volume for damage in verified.damaged} == {str(node.disk)}
    assert (version.path / "a").read_bytes() == b"a" * SIZE


def test_restaging_elsewhere_copies_what_the_node_has(node: Node) -> None:
    node.stage(node.disk)
    node.write("a", "c")

    planned = {entry.path: entry.action for entry in preview(node.open(), read_spec(node.spec()), node.home)}
    version = node.stage(node.home)

    assert planned == {"a": Action.REUSE, "c": Action.FETCH}
    assert (version.bytes_fetched, version.bytes_reused) == (SIZE, SIZE)
    assert version.path.is_relative_to(node.home)


def test_killed_copy_leaves_nothing_visible_and_resumes(node: Node) -> None:
    version = node.stage(node.disk)
    script = f"""
import os, signal
from pathlib import Path
from prefect_stagegate.model import Address
from prefect_stagegate.operations.staging.stage import stage
from prefect_stagegate.operations.workspace import open_workspace
from prefect_stagegate.transfer.progress import Progress

class Killing(Progress):
    def moved(self, size):
        os.kill(os.getpid(), signal.SIGKILL)

stage(open_workspace(), Address("things", {version.digest!r}), volume=Path({str(node.memory)!r}), progress=Killing())
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(prefect_stagegate.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, check=False, capture_output=True)

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (views(node.memory), list(node.memory.glob("blobs/*/*"))) == (set(), [])
    assert locate(open_cache(), LATEST).path == version.path
    shutil.rmtree(node.nas)
    assert node.copy(version, node.memory).bytes_fetched == 0
    assert not verify(node.open()).damaged


def test_cancelled_copy_ends_and_leaves_nothing(node: Node) -> None:
    version = node.stage(node.disk)
    cancel = Event()

    class Cancelling(Progress):
        def moved(self, _: int) -> None:
            cancel.set()

    address = Address("things", version.digest)
    with pytest.raises(Cancelled):
        stage(node.open(), address, volume=node.memory, progress=Cancelling(), cancel=cancel)

    assert used_bytes(node.open().cache.volumes[2].layout) == 0


def test_listings_show_where_a_version_lies(node: Node, run_stagegate: Run) -> None:
    version = node.stage(node.disk)
    node.copy(version, node.memory)
    workspace = node.open()

    (line,) = list_versions(workspace)
    assert line.here
    assert line.volumes == (str(node.memory), str(node.disk))
    with workspace.cache.volumes[1].leases.hold(LeaseKind.READER, "things", version.digest, "train"):
        assert "train" in run_stagegate("ls", "--held", env=node.environment).stdout
    staged = json.loads(run_stagegate("stage", "things@latest", "--json", env=node.environment).stdout)
    assert (staged["volume"], staged["bytes_fetched"]) == (str(node.disk), 0)
    assert staged["volume_reason"] == "it holds the version already"


def test_blobs_of_each_volume_are_served_to_the_site(node: Node) -> None:
    version = node.stage(node.disk)
    blobs = [path.name for path in node.disk.glob("blobs/*/*")]
    with blob_server(open_cache()) as url:
        sizes = [len(fetch(Request(f"{url}/blobs/{blob}", {}, Client())).body) for blob in blobs]
    assert (sizes, version.files) == ([SIZE, SIZE], 2)


def test_record_has_the_room_of_the_roomiest_disk(node: Node) -> None:
    version = node.stage(node.disk, home=SIZE)
    node.copy(version, node.memory)

    record = publish_record(node.open(home=SIZE, disk=5 * SIZE))

    assert record.version("things", version.digest) is not None
    assert record.used == 4 * SIZE
    assert record.room == 3 * SIZE
    assert [volume.limit for volume in record.volumes] == [SIZE, 5 * SIZE, 32 * SIZE]
    assert record.volumes[2].medium == "memory"
