"""How far a disk is from a GPU, on trees like those that sysfs shows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from prefect_stagegate.environment.nvml import Gpu, Gpus
from prefect_stagegate.gate import CheckResult
from prefect_stagegate.model import Outcome
from prefect_stagegate.plugins.node.checks.gpu import OnGpus, machine, nvml_gpus
from prefect_stagegate.plugins.node.checks.locality import distance, gpu_locality
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.testing.contexts import VOLUME, check_context

SWITCH = "pci0000:00/0000:00:01.0/0000:01:00.0"
"""A PCIe switch below a root port of the first socket."""
GPU, NVME, FAR = "0000:03:00.0", "0000:04:00.0", "0000:81:00.0"
H100 = Gpu(0, 0, "GPU-1", "NVIDIA H100", GPU, 1, 0, (), False, 0, 0, None, None, False, False)


class Tree:
    """A machine of two sockets whose /sys and /proc lie in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machine = Machine(sys=root / "sys", proc=root / "proc", dev=root / "dev")
        self._write("sys/devices/system/node/online", "0-1")
        self.mounts: list[str] = []

    def pci(self, path: str, node: int) -> Path:
        device = self.root / "sys/devices" / path
        device.mkdir(parents=True)
        self._write(f"sys/devices/{path}/numa_node", str(node))
        self._link(self.root / "sys/bus/pci/devices" / device.name, device)
        return device

    def disk(self, below: str, name: str, number: str) -> Path:
        block = self.root / "sys/devices" / below / name
        block.mkdir(parents=True)
        self._link(self.root / "sys/dev/block" / number, block)
        self._link(self.root / "sys/class/block" / name, block)
        return block

    def mount(self, point: str, kind: str, device: str, number: str) -> None:
        self.mounts.append(f"30 1 {number} / {point} rw,relatime shared:1 - {kind} {device} rw")
        self._write("proc/self/mountinfo", "\n".join(self.mounts))

    def slave(self, block: Path, of: Path) -> None:
        self._link(block / "slaves" / of.name, of)

    def _write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(f"{text}\n")

    def _link(self, link: Path, target: Path) -> None:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.pci(f"{SWITCH}/0000:02:00.0/{GPU}", node=0)
    tree.pci(f"{SWITCH}/0000:02:01.0/{NVME}", node=0)
    tree.pci("pci0000:00/0000:00:02.0/0000:05:00.0", node=0)
    tree.pci("pci0000:40/0000:40:01.0/0000:41:00.0", node=0)
    tree.pci(f"pci0000:80/0000:80:01.0/{FAR}", node=1)
    tree.mount("/", "ext4", "/dev/sda1", "8:1")
    return tree


@pytest.mark.parametrize(
    ("disk", "how_far"),
    [
        (NVME, "same PCIe switch"),
        ("0000:05:00.0", "same host bridge"),
        ("0000:41:00.0", "same NUMA node"),
        (FAR, "other NUMA node"),
        ("0000:99:00.0", "unknown"),
    ],
)
def test_distance_is_told_by_the_tree_and_then_by_the_nodes(tree: Tree, disk: str, how_far: str) -> None:
    assert distance(tree.machine, GPU, disk) == how_far
    assert distance(tree.machine, disk, GPU) == how_far


def test_one_node_is_the_node_of_devices_that_name_none(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.pci("pci0000:00/0000:00:02.0", node=-1)
    tree.pci("pci0000:40/0000:40:02.0", node=-1)
    assert distance(tree.machine, "0000:00:02.0", "0000:40:02.0") == "unknown"
    (tmp_path / "sys/devices/system/node/online").write_text("0\n")
    assert distance(tree.machine, "0000:00:02.0", "0000:40:02.0") == "same NUMA node"


def locality(tree: Tree, folder: str = "/cache", *gpus: Gpu) -> CheckResult:
    volume = replace(VOLUME, path=Path(folder))
    context = check_context({nvml_gpus: Gpus(gpus=gpus or (H100,)), machine: tree.machine}, cache_volume=volume)
    return gpu_locality(context, OnGpus())


def test_partition_of_a_drive_at_the_gpu_s_switch_passes(tree: Tree) -> None:
    tree.disk(f"{SWITCH}/0000:02:01.0/{NVME}/nvme/nvme0/nvme0n1", "nvme0n1p2", "259:2")
    tree.mount("/cache", "xfs", "/dev/nvme0n1p2", "259:2")
    answer = locality(tree)
    assert answer.outcome is Outcome.PASS
    assert answer.measured == {"disks": [NVME], "distance": {f"GPU 0 ({GPU})": "same PCIe switch"}}


def test_the_farthest_of_a_raid_s_disks_counts(tree: Tree) -> None:
    near = tree.disk(f"{SWITCH}/0000:02:01.0/{NVME}/nvme/nvme0", "nvme0n1", "259:0")
    far = tree.disk(f"pci0000:80/0000:80:01.0/{FAR}/nvme/nvme1", "nvme1n1", "259:1")
    mapped, raid = tree.disk("virtual/block", "dm-0", "253:0"), tree.disk("virtual/block", "md0", "9:0")
    tree.slave(mapped, of=raid)
    tree.slave(raid, of=near)
    tree.slave(raid, of=far)
    tree.mount("/cache", "ext4", "/dev/mapper/cache", "253:0")
    answer = locality(tree)
    assert answer.outcome is Outcome.WARN
    assert answer.measured["disks"] == [NVME, FAR]
    assert "other NUMA node" in answer.findings[0].problem
    assert "numactl" in answer.findings[0].fix


def test_drive_with_several_paths_is_found_through_its_subsystem(tree: Tree) -> None:
    block = tree.disk("virtual/nvme-subsystem/nvme-subsys0", "nvme0n1", "259:0")
    controller = tree.root / f"sys/devices/pci0000:80/0000:80:01.0/{FAR}/nvme/nvme0"
    controller.mkdir(parents=True)
    tree._link(controller / "device", controller.parents[1])
    tree._link(block / "device", block.parent)
    tree._link(block.parent / "nvme0", controller)
    tree.mount("/cache", "ext4", "/dev/nvme0n1", "259:0")
    assert tree.machine.controllers(Path("/cache")) == (FAR,)


def test_file_system_with_own_mount_numbers_is_found_by_device(tree: Tree) -> None:
    tree.disk(f"{SWITCH}/0000:02:01.0/{NVME}/nvme/nvme0", "nvme0n1", "259:0")
    tree.mount("/cache", "btrfs", "/dev/nvme0n1", "0:44")
    assert tree.machine.controllers(Path("/cache/of/ours")) == (NVME,)


@pytest.mark.parametrize(
    ("kind", "device", "number"),
    [("nfs4", "nas:/export", "0:45"), ("tmpfs", "tmpfs", "0:46"), ("ext4", "/dev/sdz", "8:400")],
)
def test_what_is_no_disk_of_this_machine_is_unknown(tree: Tree, kind: str, device: str, number: str) -> None:
    tree.mount("/cache", kind, device, number)
    answer = locality(tree)
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert "findmnt -T /cache" in answer.findings[0].fix


def test_each_gpu_is_judged_by_itself(tree: Tree) -> None:
    tree.disk(f"{SWITCH}/0000:02:01.0/{NVME}/nvme/nvme0", "nvme0n1", "259:0")
    tree.mount("/cache", "ext4", "/dev/nvme0n1", "259:0")
    other = replace(H100, index=1, pci=FAR)
    answer = locality(tree, "/cache", H100, other)
    assert [finding.subject for finding in answer.findings] == [f"GPU 1 ({FAR})"]
    assert answer.outcome is Outcome.WARN


def test_nearest_and_newest_mount_holds_a_folder(tree: Tree) -> None:
    tree.mount("/cache", "ext4", "/dev/old", "8:2")
    tree.mount("/cache/deeper", "xfs", "/dev/other", "8:4")
    tree.mount("/cache", "xfs", "/dev/new", "8:3")
    mount = tree.machine.mount(Path("/cache/of/ours"))
    assert mount is not None
    assert (mount.kind, mount.device, mount.number) == ("xfs", "/dev/new", "8:3")


def test_this_machine_names_a_folder_s_file_system_and_memory(tmp_path: Path) -> None:
    here = Machine().mount(tmp_path)
    assert here is not None
    assert here.kind
    assert Machine().memory() > 2**20
