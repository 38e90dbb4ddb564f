"""Volumes that fill up: a job runs on a tmpfs that has room for so many pages more. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crash.jobs import Sandbox
from crash.lab import Lab, Point, Verdict, problems_ended, problems_left
from crash.look import look

PAGE = 4096
ROOMY = 64 << 20
"""Bytes of a volume on which every job fits."""
ROOM = "room"
"""Stands for a kind of call: the number is the pages that are free."""


def fill(lab: Lab, job: str, pages: int, folder: Path) -> Verdict:
    """Run a job where so many pages are free, look at what is left, make room, and run it again."""
    calm = lab.calm(job)
    volume = folder / "full"
    volume.mkdir(exist_ok=True)
    sandbox = Sandbox(volume / "place", lab.nas(job))
    verdict = Verdict(Point(job, ROOM, pages, "enospc"), reached=True)
    with lab.warm() as warm, mounted(volume, ROOMY):
        subprocess.run(["cp", "-a", lab.world(job), sandbox.folder], check=True)
        volume_stat = os.statvfs(volume)
        _resize(volume, (volume_stat.f_blocks - volume_stat.f_bfree) * volume_stat.f_frsize + pages * PAGE)
        outcome = warm.run(job, sandbox)
        verdict.problems += problems_ended(verdict.point, outcome, calm)
        verdict.problems += problems_left(job, outcome, look(*sandbox.roots, lab.rotten(job)), calm)
        _resize(volume, ROOMY)
        verdict.problems += lab.converges(warm, job, sandbox)
    return verdict


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Have a volume of so many bytes at a folder for the time of the block."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _resize(volume: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", volume], check=True)
