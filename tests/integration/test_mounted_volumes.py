"""Volumes that are mounted, unmounted and full: a disk that is gone is named, and memory is never relied on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.errors import NoSpace, UnknownRef
from prefect_stagegate.model import Address
from prefect_stagegate.operations.fleet.node_readiness import node_readiness
from prefect_stagegate.operations.read import locate, open_cache, open_dataset
from prefect_stagegate.operations.staging.stage import stage
from prefect_stagegate.operations.upkeep.maintain import collect_garbage
from prefect_stagegate.operations.workspace import open_workspace, reopen_volumes

pytestmark = pytest.mark.system
LATEST = Address("things", "latest")
SIZE = 8 << 20
"""Bytes of the version."""
SMALL = 40 << 20
"""Bytes of the volume in memory; some of them are kept free."""


class Mounts:
    """A disk of its own and a small volume in memory, each with a cache in a folder of it."""

    def __init__(self, folder: Path) -> None:
        self.image, self.disk, self.memory = folder / "disk.img", folder / "disk", folder / "memory"
        self.disk.mkdir()
        self.memory.mkdir()
        subprocess.run(["truncate", "-s", "128M", self.image], check=True)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)

    def mount_disk(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.disk], check=True)

    def mount_memory(self) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", self.memory], check=True)

    @staticmethod
    def unmount(folder: Path) -> None:
        # At once, though this process may still have a file of it open.
        subprocess.run(["umount", "-l", folder], check=False)


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounts]:
    if os.geteuid():
        pytest.fail("only root can mount a volume")
    made = Mounts(tmp_path)
    made.mount_disk()
    made.mount_memory()
    (made.disk / "cache").mkdir()
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "home"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("STAGEGATE_VOLUMES", f"{made.disk / 'cache'},{made.memory / 'cache'}")
    yield made
    made.unmount(made.disk)
    made.unmount(made.memory)


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    nas = tmp_path / "nas"
    nas.mkdir()
    for name in "ab":
        (nas / name).write_bytes(os.urandom(SIZE // 2))
    return {"stagegate": 1, "dataset": "things", "sources": [{"url": str(nas)}]}


def fill(folder: Path) -> None:
    """Write into a volume until it is full."""
    with (folder / "others").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass


def test_disk_that_is_unmounted_is_named_and_not_filled(mounts: Mounts, spec: dict[str, Any]) -> None:
    version = stage(open_workspace(), spec, volume=mounts.disk / "cache")
    mounts.unmount(mounts.disk)

    workspace = open_workspace()
    with pytest.raises(UnknownRef, match=f"the volume {mounts.disk / 'cache'} is missing"):
        locate(workspace.cache, LATEST)
    assert not node_readiness(workspace, LATEST).is_ready
    collect_garbage(workspace)
    assert stage(workspace, LATEST).path.is_relative_to(workspace.cache.home.root)
    assert list(mounts.disk.iterdir()) == []

    mounts.mount_disk()
    reopen_volumes(workspace)
    assert [path for _, path in workspace.cache.copies("things", version.digest)] == [
        workspace.cache.layout.view("things", version.digest),
        version.path,
    ]


def test_disk_that_goes_while_a_process_runs_costs_no_other(mounts: Mounts, spec: dict[str, Any]) -> None:
    version = stage(open_workspace(), spec)
    workspace = open_workspace()
    stage(workspace, Address("things", version.digest), volume=mounts.disk / "cache")
    mounts.unmount(mounts.disk)

    assert locate(workspace.cache, LATEST).path == version.path
    assert node_readiness(workspace, LATEST).is_ready
    assert any(str(mounts.disk) in line for line in collect_garbage(workspace).kept)


def test_memory_is_made_anew_after_a_reboot(mounts: Mounts, spec: dict[str, Any]) -> None:
    version = stage(open_workspace(), spec)
    address = Address("things", version.digest)
    stage(open_workspace(), address, volume=mounts.memory / "cache")
    mounts.unmount(mounts.memory)
    mounts.mount_memory()

    assert locate(open_cache(), LATEST).path == version.path
    again = stage(open_workspace(), address, volume=mounts.memory / "cache")

    assert (again.bytes_fetched, again.bytes_reused) == (0, SIZE)
    assert locate(open_cache(), LATEST).path == again.path


def test_reader_takes_the_disk_while_memory_is_full(
    mounts: Mounts, spec: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    version = stage(open_workspace(), spec)
    stage(open_workspace(), Address("things", version.digest), volume=mounts.memory / "cache")
    fill(mounts.memory)

    with open_dataset("things@latest") as held:
        assert held.path == version.path
    assert f"The copy in {mounts.memory / 'cache'} is left out" in caplog.text


def test_version_that_memory_can_not_hold_is_refused_at_once(mounts: Mounts, spec: dict[str, Any]) -> None:
    nas = Path(spec["sources"][0]["url"])
    (nas / "large").write_bytes(bytes(SMALL))
    version = stage(open_workspace(), spec)

    with pytest.raises(NoSpace, match="No space left: needs"):
        stage(open_workspace(), Address("things", version.digest), volume=mounts.memory / "cache")

    assert list(mounts.memory.glob("cache/blobs/*/*")) == []
    assert locate(open_cache(), LATEST).path == version.path


def test_a_job_damages_nothing_and_holds_its_version(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "deployments/kubernetes/examples/job.yaml"
    job = next(item for item in yaml.safe_load_all(example.read_text()) if item["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/a.csv").write_text("day\n1\n")
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": str(tmp_path / "nas")}]}
    stage(open_workspace(tmp_path / "node", tmp_path / "catalog"), spec)
    (tmp_path / "cache").mkdir()

    lines = ["set -e"]
    for mount in container["volumeMounts"]:
        if mount["name"] == "cache":
            there = f"{tmp_path}{mount['mountPath']}"
            lines.append(f"mount --bind {tmp_path}/node/{mount.get('subPath', '')} {there}")
            lines += [f"mount -o remount,ro,bind {there}"] if mount.get("readOnly") else []
    command = "sh -c 'ls leases; for folder in blobs refs {}; do touch $folder/x; done'"
    lines.append(f"cd {tmp_path}/cache && exec stagegate exec things@latest -- {command}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    places = {"STAGEGATE_CACHE": str(tmp_path / "cache"), "STAGEGATE_CATALOG": str(tmp_path / "catalog"), "PATH": path}
    script = ["unshare", "--mount", "sh", "-c", "\n".join(lines)]
    done = subprocess.run(script, env={**os.environ, **places}, capture_output=True, text=True, check=False)
    assert done.stderr.count("Read-only file system") == 3, done.stderr
    assert len(done.stdout.split()) == 1
