"""Power cuts: a job runs on an ext4 volume in a file, and the volume loses its power at one call. Needs root.

Two ways to lose it, the two ends of what can happen: everything since the last sync is lost; or the file system commits
its journal just before, so that all names and sizes are there and the bytes that nobody synced are not. And two ways to
mount: as everybody does, and `writeback`, where a file has its size before its bytes.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import pack

from crash.jobs import JOBS, Sandbox
from crash.lab import Lab, Point, Verdict, problems_left
from crash.look import look

MOUNTS = {"ordered": "data=ordered", "writeback": "data=writeback,nodelalloc", "full": "data=writeback,nodelalloc"}
"""How the volume is mounted, by what is tried: `full` is STAGEGATE_DURABILITY=full, the others batch."""
FAULTS = ("cut", "commit-and-cut")
KINDS = ("create", "write", "sync", "syncfs", "rename", "link", "unlink", "chmod")
"""Before which calls the power is cut; between others nothing is written."""
END = "end"
"""Stands for a kind: the power is cut after the job said that it had succeeded."""
SIZE = 48 << 20


@dataclass(frozen=True, order=True)
class Cut:
    """One power cut."""

    point: Point
    mount: str

    def __str__(self) -> str:
        return f"{self.point}:{self.mount}"

    @classmethod
    def parse(cls, text: str) -> Cut:
        """The opposite of `str`."""
        point, _, mount = text.rpartition(":")
        return cls(Point.parse(point), mount)


def cuts(lab: Lab) -> list[Cut]:
    """Every cut of every job."""
    points = [
        Point(job, kind, number, fault)
        for job in JOBS
        for kind, count in ({kind: lab.calm(job).counts[kind] for kind in KINDS} | {END: 1}).items()
        for number in range(1, count + 1)
        for fault in FAULTS
    ]
    return [Cut(point, mount) for point in points for mount in MOUNTS]


def cut_power(lab: Lab, cut: Cut, folder: Path) -> Verdict:
    """Run a job on a volume of its own, cut its power, and look at what comes up again; `folder` is for the volume."""
    point, options = cut.point, MOUNTS[cut.mount]
    calm = lab.calm(point.job)
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    sandbox = Sandbox(mounted / "place", lab.nas(point.job))
    with lab.warm() as warm:
        with _mounted(image, mounted, options):
            subprocess.run(["cp", "-a", lab.world(point.job), sandbox.folder], check=True)
            subprocess.run(["sync", "-f", mounted], check=True)
            kind = {} if point.kind == END else {"kind": point.kind, "number": point.number, "fault": point.fault}
            settings = {"STAGEGATE_DURABILITY": "full"} if cut.mount == "full" else {}
            outcome = warm.run(point.job, sandbox, skip_sync=False, settings=settings, **kind)
            if point.kind == END:
                _cut(mounted, commit=point.fault != "cut")
        verdict = Verdict(point, point.kind == END or "spoilt" in outcome, outcome.get("spoilt", ""), again=str(cut))
        with _mounted(image, mounted, options):
            seen = look(*sandbox.roots, lab.rotten(point.job), blobs=False)
            verdict.problems += problems_left(point.job, outcome, seen, calm)
            verdict.problems += lab.converges(warm, point.job, sandbox, boot="the next")
    return verdict


@contextmanager
def _mounted(image: Path, mounted: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-o", f"loop,{options}", image, mounted], check=True)
    try:
        yield
    finally:
        _unmount(mounted)


def _unmount(mounted: Path) -> None:
    """Whoever was killed lets go of its files a moment later."""
    for _ in range(50):
        if subprocess.run(["umount", "-q", mounted], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.1)
    raise OSError(f"{mounted} can't be unmounted")


def _cut(mounted: Path, *, commit: bool) -> None:
    """As the shim does it."""
    if commit:
        with (mounted / "unrelated").open("wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    folder = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(folder, 0x8004587D, pack("I", 2))
    os.close(folder)
