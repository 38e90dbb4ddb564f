"""Ask feed_rate and utilisation about a volume whose speed is known, and write how true their answers are.

    python -m benchmarks.feed [--limit 100] [--folder DIR] [--dry-run]

As root: a control group of its own slows this process's reads of the folder's disk down to the limit. The job then
needs half, nearly all, twice and four times of what the volume gives. Asked right, feed_rate is that share of the
need, and so is the busy share of a volume that gives too little.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.section import write_section
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.evidence_rules import run_check
from prefect_stagegate.model import Entry, Evidence, Severity
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import a_spec, check_context

GROUPS = Path("/sys/fs/cgroup")
FILES, SIZE = 32, 16 * 2**20
BATCH, SAMPLES = 4 * 2**20, 16
NEEDS = (0.5, 0.95, 2.0, 4.0)
"""What the job needs, as a share of what the volume gives."""


@contextmanager
def slowed(folder: Path, rate: int) -> Iterator[None]:
    """Read no more than `rate` bytes a second from the disk under a folder, this process alone."""
    mount = Machine().mount(folder)
    if mount is None:
        sys.exit(f"Nothing tells which disk {folder} lies on")
    unified = (GROUPS / "cgroup.controllers").exists()
    base = GROUPS if unified else GROUPS / "blkio"
    group = base / f"stagegate-bench-{os.getpid()}"
    group.mkdir()
    try:
        if unified:
            (base / "cgroup.subtree_control").write_text("+io")
            (group / "io.max").write_text(f"{mount.number} rbps={rate}")
        else:
            (group / "blkio.throttle.read_bps_device").write_text(f"{mount.number} {rate}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (base / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def fill(folder: Path) -> list[Entry]:
    """Write the version's files, and wait until the disk has them."""
    for number in range(FILES):
        (folder / str(number)).write_bytes(os.urandom(SIZE))
    os.sync()
    return [Entry(str(number), SIZE, "blake3:0") for number in range(FILES)]


def ask(name: str, folder: Path, entries: list[Entry], needs: float) -> Evidence:
    """Ask one check about a job that needs so many bytes a second."""
    job = {"batch_size": SAMPLES, "sample_size": BATCH // SAMPLES, "step_time": BATCH / needs}
    context = check_context(spec=a_spec(job=job), bytes=FILES * SIZE, entries=entries, local_view=lambda: folder)
    return run_check(CHECKS[name], Requirement(name, Severity.BLOCKING, {"seconds": "6s"}), context)


def row(share: float, folder: Path, entries: list[Entry], limit: int) -> str:
    """One line of the table: both checks about a job that needs a share of what the volume gives."""
    rate, busy = (ask(name, folder, entries, share * limit).measured for name in ("feed_rate", "utilisation"))
    named = ", ".join(str(found.get("bottleneck", "–")) for found in (rate, busy))
    found = f"{rate['rate'] / limit:.2f} × | {rate['ratio']:.2f}"
    return f"| {share:g} × | {found} | {min(1 / share, 1):.2f} | {busy['busy_share']:.2f} | {busy['steps']} | {named} |"


def table(limit: int, folder: Path) -> str:
    """The figures as Markdown."""
    entries = fill(folder)
    with slowed(folder, limit):
        rows = [row(share, folder, entries, limit) for share in NEEDS]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    return "\n".join(
        [
            f"A disk that gives {limit / 1e6:.0f} MB/s and no more, {FILES} files of 16 MiB, 6 s a check ({machine}).",
            "",
            "| the job needs | rate found | feed_rate | busy share, expected | utilisation | steps | held back by |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "Again, as root: `python -m benchmarks.feed`",
        ]
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Ask the checks about a volume whose speed is known.")
    parser.add_argument("--limit", type=float, default=100, help="MB/s that the disk gives")
    parser.add_argument("--folder", type=Path, help="where the files go; the system's temporary folder by default")
    parser.add_argument("--dry-run", action="store_true", help="only print the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        text = table(int(given.limit * 1e6), Path(folder))
    print(text)
    if not given.dry_run:
        write_section("feed", text)


if __name__ == "__main__":
    main()
