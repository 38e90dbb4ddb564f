"""Read a data set for training over a slow link while it arrives, beside other readers, and write docs/performance.md.

    python -m benchmarks.reading [--samples 20000] [--rate 200mbit] [--workers 0] [--layout shards] [--only TEXT]

Takes root: an S3 server and the readers have a network namespace of their own on this machine. Samples of 200 kB lie
there in tars of 64 MB, as single files, and in the formats of the others. Each reader begins in a new process with
nothing kept, reads all samples in batches by torch's DataLoader, and reads them again: benchmarks/readers.py has them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from benchmarks.plot import Panel, plot
from benchmarks.section import PAGE, write_section
from prefect_stagegate.testing.launching import launched
from tests.plugins.fleet.network import Host, network, shape

PYTHON = Path(__file__).parent.parent / ".reading/bin/python"
PLOT = PAGE.parent / "pictures/reading.svg"
SAMPLE = 200_000
"""Bytes of a sample."""
LAYOUTS = {
    "shards": (
        "floor",
        "plain folder",
        "stagegate",
        "staging first",
        "MosaicML Streaming",
        "LitData",
        "datasets",
        "s3fs",
    ),
    "files": ("floor", "plain folder", "stagegate", "staging first", "LitData raw", "s3fs"),
}
"""By layout, who reads it."""
TITLES = {"shards": "shards of 64 MB", "files": "{:,} files"}
FORMATS = {"MosaicML Streaming": "mds", "LitData": "litdata", "datasets": "parquet"}
"""What readers need that don't read the layout itself."""
LOCAL = "plain folder"
DRAWN = (*LAYOUTS["shards"][2:], LOCAL)
VERSIONS = """
import json
from importlib.metadata import version
names = "torch", "mosaicml-streaming", "litdata", "datasets", "s3fs"
print(json.dumps({name: version(name) for name in names}))
"""


@dataclass(frozen=True)
class Reading:
    """What one reader took: seconds."""

    layout: str
    workers: int
    reader: str
    imports: float
    """From its process's start to its opening."""
    first: float
    """From its opening to its first batch."""
    epoch: float
    """The first epoch, from its opening on."""
    again: float
    """A later epoch: the median; 0 where none was read."""
    way: Sequence[tuple[float, int]]
    """Of the first two epochs: seconds since the opening, and samples read by then."""
    received: int
    """Bytes that the server sent meanwhile, headers included."""
    load: float
    """The machine's load average when it ended."""


# ── the server ──────────────────────────────────────────────────────────────────────────────────────────────────────


def serve(folder: Path, address: str, samples: int, *names: str) -> None:
    """Fill an S3 server and serve until killed. Runs on the server's host; `served.json` says that it is filled."""
    from prefect_stagegate.testing.servers import seaweedfs

    layouts = [name for name in LAYOUTS if name in names]
    formats = dict.fromkeys(("files", *names))  # the files tell the CRCs
    with seaweedfs(folder / "server", address=address) as server:
        for name in formats:
            made = folder / "plain" / name
            made.mkdir(parents=True)
            make = [str(PYTHON), "-m", "benchmarks.readers", "make", name, str(made), str(samples)]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
            if name == "files" and name not in layouts:
                continue
            server.bucket(name)
            below = "" if name in LAYOUTS else "data/"
            server.client().put(f"{made}/", f"{name}/{below}", recursive=True, batch_size=16)
            if name not in LAYOUTS:
                shutil.rmtree(made)
        files = sorted((folder / "plain/files").iterdir())
        (folder / "crcs.json").write_text(json.dumps([crc32(file.read_bytes()) for file in files]))
        access = {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret, "AWS_REGION": "us-east-1"}
        for name in layouts:
            source = {"url": f"s3://{name}/", "options": {"endpoint_url": server.endpoint_url}}
            spec = folder / f"{name}.yaml"
            spec.write_text(json.dumps({"stagegate": 1, "dataset": name, "sources": [source]}))
            subprocess.run(
                [str(PYTHON.parent / "stagegate"), "stage", str(spec), "--quiet"],
                env={**os.environ, **access, **stagegate_folders(folder, folder / "first"), "STAGEGATE_NODE": "first"},
                check=True,
            )
            shutil.rmtree(folder / "first", ignore_errors=True)
        said = folder / "served.new"
        said.write_text(json.dumps({"endpoint": server.endpoint_url, "access": access}))
        said.rename(folder / "served.json")
        signal.pause()


def stagegate_folders(folder: Path, cache: Path) -> dict[str, str]:
    return {"STAGEGATE_CACHE": str(cache), "STAGEGATE_CATALOG": str(folder / "catalog")}


@contextmanager
def served(host: Host, folder: Path, samples: int, names: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The server's endpoint, and the environment that may read it."""
    ready = folder / "served.json"
    command = [sys.executable, "-m", "benchmarks.reading", "--serve", str(folder), host.address, str(samples), *names]
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(PAGE.parent.parent)}
    log = folder / "serve.log"
    with launched(host.command(*command), log, ready.exists, env=environment, timeout=3600):
        yield json.loads(ready.read_text())


# ── the readers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def run(
    reader: str, layout: str, workers: int, folder: Path, hosts: Mapping[str, Host], answer: Mapping[str, Any]
) -> Reading:
    """Let a reader read two epochs or more, beginning with nothing."""
    local = folder / "local"
    local.mkdir()
    place = {
        "layout": layout,
        "workers": workers,
        "began": time.monotonic(),
        "plain": str(folder / "plain" / layout),
        "local": str(local / "kept"),
        "crcs": str(folder / "crcs.json"),
        "endpoint": answer["endpoint"],
    }
    environment = {
        **answer["access"],
        **stagegate_folders(folder, local / "cache"),
        "PATH": os.environ["PATH"],
        "HOME": str(local),
        "PYTHONPATH": str(PAGE.parent.parent),
        "TMPDIR": str(local),
        "S3_ENDPOINT_URL": answer["endpoint"],
        "AWS_ENDPOINT_URL": answer["endpoint"],
        "HF_HUB_OFFLINE": "1",
    }
    sent = hosts["source"].sent
    done = subprocess.run(
        hosts["reader"].command(str(PYTHON), "-m", "benchmarks.readers", "read", reader, json.dumps(place)),
        env=environment,
        cwd=local,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{reader} failed with {layout}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    epoch, *later = said["epochs"]
    shutil.rmtree(local)
    return Reading(
        layout,
        workers,
        reader,
        said["imports"],
        said["first"],
        epoch,
        statistics.median(later) if later else 0.0,
        said["way"],
        hosts["source"].sent - sent,
        os.getloadavg()[0],
    )


def measure(options: argparse.Namespace, folder: Path) -> list[Reading]:
    """Let all readers read, one after another."""
    readings = []
    plan = {
        layout: [reader for reader in LAYOUTS[layout] if any(word in reader for word in options.only or [""])]
        for layout in options.layout or LAYOUTS
    }
    names = {*plan, *(FORMATS[reader] for readers in plan.values() for reader in readers if reader in FORMATS)}
    with network(["source", "reader"]) as hosts, served(hosts["source"], folder, options.samples, names) as answer:
        for host in hosts.values():
            shape(host, options.rate)
        for layout, readers in plan.items():
            for workers in options.workers:
                for reader in readers:
                    readings.append(run(reader, layout, workers, folder, hosts, answer))
                    print(readings[-1], flush=True)
    return readings


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────


def page(readings: Sequence[Reading], options: argparse.Namespace) -> str:
    """What goes between the markers of docs/performance.md."""
    size = options.samples * SAMPLE
    loads = [reading.load for reading in readings]
    received = [reading.received for reading in readings if reading.reader != LOCAL]
    libraries = json.loads(subprocess.run([PYTHON, "-c", VERSIONS], check=True, capture_output=True, text=True).stdout)
    lines = [
        f"{options.samples:,} samples of 200 kB ({size / 1e9:.1f} GB) on SeaweedFS, behind a link of {options.rate} in"
        " either direction (network namespaces, `tc tbf`), in batches of 32 by torch's DataLoader;"
        f" on {os.cpu_count()} cores"
        f" ({platform.machine()}, Linux {platform.release()}, Python {platform.python_version()},"
        f" {', '.join(' '.join(each) for each in libraries.items())}), load average {min(loads):.1f} to"
        f" {max(loads):.1f}, {time.strftime('%Y-%m-%d')}. Decoding a sample is its CRC, and each CRC is compared.",
        "",
        f"![Samples read by seconds since the opening](pictures/{PLOT.name})",
        "",
    ]
    for workers in options.workers:
        rows = [reading for reading in readings if reading.workers == workers]
        if rows:
            lines += [*table(rows, options.samples, size * 8 / bits(options.rate)), ""]
    again = f"--samples {options.samples} --rate {options.rate}"
    return "\n".join(
        [
            *lines,
            "Seconds begin at the opening, after the imports. In brackets: epoch 1 by what the samples' bytes take on"
            " the link, without headers; the speed of epoch 2 by that of the plain folder. The floor, datasets and s3fs"
            " keep nothing, and read one. The floor reads ranges of 8 MB by 16 threads and decodes nothing. The server"
            " sent"
            f" {' to '.join(f'{sent / 1e9:.2f}' for sent in (min(received), max(received)))} GB to each but the plain"
            " folder.",
            "",
            f"Again, as root: `make bench-reading`, or `python -m benchmarks.reading {again}`",
        ]
    )


def bits(rate: str) -> float:
    """Bits a second of a rate as tc(8) writes it; `mbit` alone is known."""
    return float(rate.removesuffix("mbit")) * 1e6


def table(readings: Sequence[Reading], samples: int, limit: float) -> Iterator[str]:
    """The figures of one number of workers; `limit` is the seconds that the samples' bytes take on the link."""
    layouts = [layout for layout in LAYOUTS if any(reading.layout == layout for reading in readings)]
    heads = (f"{TITLES[layout].format(samples)}: first batch s | epoch 1 s | epoch 2 s" for layout in layouts)
    yield f"| {readings[0].workers} workers | {' | '.join(heads)} |"
    yield "|---" + "|---:" * (3 * len(layouts)) + "|"
    for reader in dict.fromkeys(reading.reader.removesuffix(" raw") for reading in readings):
        cells: list[str] = []
        for layout in layouts:
            those = [reading for reading in readings if reading.layout == layout]
            kept = next((reading.again for reading in those if reading.reader == LOCAL), 0.0)
            found = [reading for reading in those if reading.reader.removesuffix(" raw") == reader]
            cells += _cells(found[0], kept, limit) if found else [""] * 3
        yield f"| {' | '.join([reader, *cells])} |"


def _cells(reading: Reading, kept: float, limit: float) -> list[str]:
    """First batch, first epoch (by the link's time) and second one (by the plain folder's speed)."""
    epoch = f"{reading.epoch:.1f}" + ("" if reading.reader == LOCAL else f" ({reading.epoch / limit:.2f})")
    return [f"{reading.first:.2f}", epoch, f"{reading.again:.1f} ({kept / reading.again:.2f})" if reading.again else ""]


def draw(readings: Sequence[Reading], options: argparse.Namespace) -> str:
    """The plot: a panel for each layout, with the loader's first number of workers."""
    panels = []
    for layout in LAYOUTS:
        ways = {
            reading.reader.removesuffix(" raw"): reading.way
            for reading in readings
            if (reading.layout, reading.workers) == (layout, options.workers[0])
        }
        lines = {reader: [(x, y * SAMPLE / 1e9) for x, y in thinned(ways.get(reader, ()))] for reader in DRAWN}
        if any(lines.values()):
            title = TITLES[layout].format(options.samples)
            panels.append(Panel(f"{title}: GB read in two epochs, by seconds", lines, is_linear=True))
    return plot(panels)


def thinned(way: Sequence[tuple[float, int]]) -> Sequence[tuple[float, int]]:
    """A hundred points of a line, at most, with its last one."""
    return [*way[:: len(way) // 100 + 1], *way[-1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000, help="of 200 kB each; takes seven times as much disk")
    parser.add_argument("--rate", default="200mbit")
    parser.add_argument("--workers", type=int, action="append", help="of the loader; 0 when left out")
    parser.add_argument("--layout", action="append", choices=LAYOUTS, help="both when left out")
    parser.add_argument("--only", action="append", help="the readers that have this in their names")
    parser.add_argument("--earlier", type=Path, action="append", default=[], help="figures of other runs to show, too")
    parser.add_argument("--folder", type=Path, help="a folder on the volume to measure")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the tables and leave the page and its picture alone"
    )
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), options.serve[1], int(options.serve[2]), *options.serve[3:])
        return
    options.workers = options.workers or [0]
    with tempfile.TemporaryDirectory(prefix="stagegate-bench-", dir=options.folder, ignore_cleanup_errors=True) as made:
        readings = measure(options, Path(made))
    if options.json:
        options.json.write_text(json.dumps([asdict(reading) for reading in readings]))
    known = {(reading.layout, reading.workers, reading.reader) for reading in readings}
    for file in options.earlier:
        others = [Reading(**fields) for fields in json.loads(file.read_text())]
        readings += [each for each in others if (each.layout, each.workers, each.reader) not in known]
    readings.sort(key=lambda reading: LAYOUTS[reading.layout].index(reading.reader))
    text = page(readings, options)
    print(text)
    if not options.dry_run:
        PLOT.write_text(draw(readings, options))
        write_section("reading", text)


if __name__ == "__main__":
    main()
