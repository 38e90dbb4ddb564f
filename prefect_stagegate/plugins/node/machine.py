"""Facts about this machine from Linux: PCI devices, NUMA nodes, the disks under a folder, and memory.

All of them are read below three folders, so that a test can put a tree of its own in their place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NVIDIA = "0x10de"
DISPLAY = "0x03"
"""The beginning of the PCI class of GPUs, also of those without a display."""
ONLY_NODE = "0"


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system that holds a folder."""

    kind: str
    """Its type, as /proc writes it: `ext4`, `nfs4`, `tmpfs`."""
    device: str
    """The mounted device or export: `/dev/nvme0n1p2`, `nas:/export`."""
    number: str
    """Its device number, `259:2`; the major number is 0 where no block device is mounted."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The three folders, and what can be read below them."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")

    def pci_gpus(self) -> tuple[str, ...]:
        """The PCI addresses of NVIDIA's GPUs, with or without a driver."""
        devices = sorted((self.sys / "bus/pci/devices").glob("*"))
        of_nvidia = (device for device in devices if _read(device / "vendor") == NVIDIA)
        return tuple(device.name for device in of_nvidia if _read(device / "class").startswith(DISPLAY))

    def pci_path(self, address: str) -> tuple[str, ...]:
        """The path from the root complex to a PCI device: `("pci0000:00", "0000:00:01.0", "0000:3b:00.0")`."""
        place = self.sys / "bus/pci/devices" / address
        return _pci_parts(place.resolve()) if place.exists() else ()

    def numa_node(self, address: str) -> int | None:
        """The NUMA node of a PCI device; None where the firmware names none and there are several."""
        node = _read(self.sys / "bus/pci/devices" / address / "numa_node")
        if node.isdigit():
            return int(node)
        # The firmware writes -1 for a node that it does not know; with a single node there is no doubt.
        return 0 if _read(self.sys / "devices/system/node/online") == ONLY_NODE else None

    def mount(self, folder: Path) -> Mount | None:
        """The file system that holds a folder: mounted nearest above it, and of several there the last one."""
        # A link in the path may lead to another volume.
        real = Path(os.path.realpath(folder))
        holding = [(point, mount) for point, mount in self._mounts() if real.is_relative_to(point)]
        nearest = max((len(point.parts) for point, _ in holding), default=0)
        return next((mount for point, mount in reversed(holding) if len(point.parts) == nearest), None)

    def controllers(self, folder: Path) -> tuple[str, ...]:
        """The PCI addresses of the NVMe drives, RAID cards and the like that hold a folder's file system.

        Empty where no block device of this machine is mounted, or none of its disks is a PCI device.
        """
        mount = self.mount(folder)
        if mount is None:
            return ()
        block = self.sys / "dev/block" / mount.number
        if not block.exists():  # btrfs and others give a mount a number of their own, so go by its device
            block = self.sys / "class/block" / Path(os.path.realpath(mount.device)).name
        paths = {path for disk in self._disks(block.resolve()) if (path := _pci_parts(disk))}
        return tuple(sorted(path[-1] for path in paths))

    def memory(self) -> int:
        """Bytes of memory; 0 where /proc does not say."""
        lines = _read(self.proc / "meminfo").splitlines()
        fields = next((line.split() for line in lines if line.startswith("MemTotal:")), ["", "0"])
        return int(fields[1]) * 1024

    def read_from_storage(self) -> int | None:
        """Bytes that storage has read for this process so far, read-ahead included; None where /proc does not say."""
        counters = dict(line.partition(": ")[::2] for line in _read(self.proc / "self/io").splitlines())
        return int(counters["read_bytes"]) if "read_bytes" in counters else None

    def _mounts(self) -> Iterator[tuple[Path, Mount]]:
        for line in _read(self.proc / "self/mountinfo").splitlines():
            # Optional fields come before " - ", in any number; type and device come after it.
            before, _, after = line.partition(" - ")
            _, _, number, _, point, *_ = before.split(" ")
            kind, device, *_ = after.split(" ")
            # The kernel writes blanks in octal.
            yield Path(point.replace("\\040", " ")), Mount(kind, device.replace("\\040", " "), number)

    def _disks(self, block: Path) -> Iterator[Path]:
        """The disks below a block device: the members of a RAID or mapped device, each path of an NVMe, or itself."""
        if not block.is_dir():
            return
        # Multipath NVMe has one block device over several controllers, each of them a path to the disk.
        below = sorted((block / "slaves").glob("*"))
        paths = [] if below else sorted((block / "device").glob("nvme[0-9]*/device"))
        for part in (*below, *paths):
            yield from self._disks(part.resolve())
        if not below and not paths:
            yield block


def _pci_parts(place: Path) -> tuple[str, ...]:
    """The root complex and the PCI addresses in a path below /sys/devices, in order; empty without a root complex."""
    parts = place.parts
    root = next((at for at, part in enumerate(parts) if part.startswith("pci") and ":" in part), len(parts))
    # An address is domain:bus:device.function.
    addresses = (part for part in parts[root + 1 :] if part.count(":") == 2 and "." in part)  # noqa: PLR2004
    return (*parts[root : root + 1], *addresses)


def _read(file: Path) -> str:
    """The stripped text of a small file; empty where it can't be read."""
    try:
        return file.read_text(errors="surrogateescape").strip()
    except OSError:
        return ""
