"""Stage from a server of each family, against the best client of that family, and write docs/performance.md.

    python -m benchmarks.sources [--rounds 3] [--family sftp …] [--folder DIR] [--dry-run]

Both copy the same files from the same server to the same disk, in turn, each in a new process; what is told is the
median of the seconds after the imports, until the volume is synced. Ours is the whole of `stagegate stage`.

A family is one class beside this file with a line in `FAMILIES`: what serves the files, and how its best client copies
them. One whose server isn't installed is left out, and what would install it is said.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.section import write_section
from benchmarks.sources.clouds import S3, Azure, Gcs
from benchmarks.sources.family import FILES, Family, Options, sizes
from benchmarks.sources.files import Files, Sftp
from benchmarks.sources.tables import Delta, Iceberg, Sql
from benchmarks.sources.web import Http, Https, Hub, WebDav
from prefect_stagegate.errors import MissingExtra

ROOT = Path(__file__).parents[2]
LONGEST = 120.0
"""Seconds after which a copy is given up, and the run with it."""
FAMILIES: dict[str, Family] = {
    "file": Files(),
    "sftp": Sftp(),
    "s3": S3(),
    "gs": Gcs(),
    "az": Azure(),
    "http": Http(),
    "https": Https(),
    "webdav": WebDav(),
    "hf": Hub(),
    "delta": Delta(),
    "iceberg": Iceberg(),
    "postgresql": Sql(),
}


class Took(NamedTuple):
    """What one copy took."""

    seconds: float
    cpu: float
    """The process's own seconds of processor time, and its children's."""


# ── the worker: one copy in a new process ───────────────────────────────────────────────────────────────────────────


def stage(url: str, options: Options, out: Path) -> None:
    from prefect_stagegate.jobs.open_workspace import open_workspace
    from prefect_stagegate.jobs.staging.stage import stage as staged

    # A spec holds no passwords, so all options come as a block's would.
    workspace = open_workspace(out / "cache", out / "catalog", resolve_credentials=lambda _: options)
    staged(
        workspace, {"stagegate": 1, "dataset": "measured", "sources": [{"url": url, "credentials": "block/measured"}]}
    )


def work(family: Family, who: str, url: str, options: Options, out: Path) -> Took:
    """Copy once, until the volume is synced."""
    from prefect_stagegate.sources import open_source

    open_source(url, options).close()  # imports what the adapter needs, and asks no server
    for module in (*family.imports, "prefect_stagegate.jobs.staging.stage", "prefect_stagegate.catalog.tables"):
        import_module(module)
    job = stage if who == "ours" else family.copy
    cpu, begun = sum(os.times()[:4]), time.monotonic()
    job(url, options, out)
    descriptor = os.open(out, os.O_RDONLY)
    if ctypes.CDLL(None).syncfs(descriptor):
        sys.exit("the volume can't be synced")
    return Took(time.monotonic() - begun, sum(os.times()[:4]) - cpu)


# ── the rounds ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run(name: str, who: str, served: tuple[str, Options], out: Path) -> Took:
    """Let a worker copy into the folder."""
    url, options = served
    out.mkdir()
    os.sync()  # what an earlier one left to the kernel is not this one's burden
    command = [sys.executable, "-m", "benchmarks.sources", "--worker", name, who, url, json.dumps(dict(options))]
    # A session of its own, so that what a worker started ends with it.
    with subprocess.Popen(
        [*command, str(out)], stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as worker:
        try:
            told = worker.communicate(timeout=LONGEST)[0]
        except BaseException as error:
            os.killpg(worker.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                sys.exit(f"{name}, {who}: no end after {LONGEST:.0f} s")
            raise
    if worker.returncode:
        sys.exit(f"{name}, {who}: failed")
    return Took(*json.loads(told.splitlines()[-1]))


def measure(name: str, which: str, files: Path, folder: Path, rounds: int) -> dict[str, Took]:
    """The medians: ours, and the client's."""
    family, found = FAMILIES[name], dict[str, list[Took]](ours=[], client=[])
    least = sum(sizes(files / which).values()) if family.sets is FILES else 1
    server = folder / "server"
    server.mkdir(parents=True)
    with family.serve(files / which, server) as served:
        for number in range(rounds):
            for who in sorted(found, reverse=bool(number % 2)):
                out = folder / f"{who}-{number}"
                found[who].append(run(name, who, served, out))
                if held(out) < least:
                    sys.exit(f"{name}, {who}: less was copied than there is")
                if which == "large":  # small files stay: ext4 is slow to make files where many were deleted just now
                    shutil.rmtree(out)
    shutil.rmtree(server, ignore_errors=True)
    return {who: Took(*map(statistics.median, zip(*took, strict=True))) for who, took in found.items()}


def held(folder: Path) -> int:
    """Bytes of the files below a folder; those that share an inode count once."""
    found = {entry.stat().st_ino: entry.stat().st_size for entry in folder.rglob("*") if entry.is_file()}
    return sum(found.values())


def seed(folder: Path) -> None:
    """Write both sets; the same bytes each time."""
    source = random.Random(7)  # noqa: S311 - the same bytes each time
    for which, count, size in (("large", 4, 128 << 20), ("small", 2000, 4000)):
        (folder / which).mkdir(parents=True)
        for number in range(count):
            with (folder / which / f"{number:05}.bin").open("wb") as file:
                for start in range(0, size, 1 << 20):
                    file.write(source.randbytes(min(1 << 20, size - start)))


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────


def page(rows: list[str], missing: list[str], rounds: int, load: float) -> str:
    """What goes between the markers of docs/performance.md."""
    head = (
        f"Medians of {rounds} rounds in turn, a new process each, in seconds after the imports until the volume is"
        f" synced, on {os.cpu_count()} cores that the servers use too ({platform.machine()}, Linux"
        f" {platform.release()}, Python {platform.python_version()}), load average {load:.1f} before,"
        f" {time.strftime('%Y-%m-%d')}. Large: 4 files of 128 MiB, or a table of 2,000,000 rows. Small: 2,000 files of"
        " 4 kB, or 20,000 rows. `obstore` is its `get_async`, 32 at once."
    )
    table = [
        "| family | large, by the client's | small, by the client's | best client |",
        "|---|---|---|---|",
    ]
    left_out = ["", f"Not measured, for want of a server: {', '.join(missing)}."] if missing else []
    return "\n".join([head, "", *table, *rows, *left_out, "", "Again: `make bench-sources`"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="all when left out")
    parser.add_argument("--set", action="append", choices=list(FILES), help="both when left out")
    parser.add_argument("--folder", type=Path, help="a folder on the volume to measure; needs 4 GB")
    parser.add_argument("--dry-run", action="store_true", help="print the table and leave the page alone")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, who, url, given, out = options.worker
        print(json.dumps(work(FAMILIES[name], who, url, json.loads(given), Path(out))), flush=True)
        os._exit(0)  # obstore's coroutines abort one process in a hundred as its interpreter ends
    load, rows, missing = os.getloadavg()[0], list[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="stagegate-bench-", dir=options.folder, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        seed(folder / "files")
        for name in options.family or FAMILIES:
            both: dict[str, dict[str, Took]] = {}
            for which in options.set or FILES:
                try:
                    both[which] = measure(name, which, folder / "files", folder / f"{name}-{which}", options.rounds)
                except MissingExtra as error:
                    print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
                    missing.append(name)
                    break
                print(name, which, both[which], flush=True)
            if both:
                rows.append(row(name, both))
    if not options.dry_run:
        write_section("sources", page(rows, missing, options.rounds, load))
    if missing and options.family:
        sys.exit(1)


def row(name: str, both: dict[str, dict[str, Took]]) -> str:
    """A line of the table: the large set, then the small one."""
    cells = []
    for which in FILES:
        if took := both.get(which):
            ours, client = took["ours"].seconds, took["client"].seconds
            cells.append(f"{ours:.2f} ({ours / client:.2f})")
        else:
            cells.append("–")
    return f"| {' | '.join([name, *cells, FAMILIES[name].client])} |"


if __name__ == "__main__":
    main()
