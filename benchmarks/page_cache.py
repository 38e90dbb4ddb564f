"""Bring the page cache into a known state: free, or full of clean pages.

Writing costs more where each page of memory must be taken from something else, as on a node that has long read and
written files.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

STEP = 256 << 20
FREE, FULL = 0.25, 0.01
"""Shares of memory that are unused, at least and at most. Of a full one the kernel keeps about half a percent."""
STATES = {
    "free": "what a run wrote is removed; where less than 25 % of memory is unused, root drops all clean pages",
    "full": "before each run holes of a sparse file are read until at most 1 % of memory is unused",
}


def prepare(state: str, filler: Path, server: Path) -> None:
    """Make one of `STATES`, and read the server's files.

    Pages are not dropped before each run: programs would be read from the disk again, which is no part of a transfer.

    Args:
        state: Its name.
        filler: A sparse file, which is made and grows. It takes no space.
        server: The folder of what the server reads.
    """
    os.sync()  # what an earlier run left to the kernel is not the next one's burden
    if state == "free":
        filler.unlink(missing_ok=True)
        if meminfo("MemFree") < FREE * meminfo("MemTotal"):
            with suppress(PermissionError):
                Path("/proc/sys/vm/drop_caches").write_text("1")
    else:
        for _ in range(0, meminfo("MemTotal"), STEP):
            if meminfo("MemFree") < FULL * meminfo("MemTotal"):
                break
            with filler.open("ab") as file:
                file.truncate(file.tell() + STEP)
            read(filler, filler.stat().st_size - STEP)
    for path in server.rglob("*"):
        if path.is_file():
            read(path)


def read(path: Path, position: int = 0) -> None:
    """Read a file from a position on, without a copy."""
    with path.open("rb") as file, Path(os.devnull).open("wb") as nowhere:
        while count := os.sendfile(nowhere.fileno(), file.fileno(), position, STEP):
            position += count


def meminfo(name: str) -> int:
    """A figure of /proc/meminfo, in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
