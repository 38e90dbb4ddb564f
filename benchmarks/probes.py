"""Probe 20,000 JPEGs against a plain Pillow loop over all cores, and write the figures into docs/performance.md.

    python -m benchmarks.probes [--files 20000] [--new 10] [--rounds 3] [--dry-run]

The plain loop is a `multiprocessing.Pool` of one process a core that opens and decodes each file, as a script would.
Ours is `probe_files` over the same folder, its workers' start included; then a version with some new files, with the
passes of the others known. They take turns.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from benchmarks.section import write_section

SMALLEST, LARGEST = 64, 256
CHUNK = 64
Figures = tuple[float, float]
"""Seconds, and seconds of the processor."""
PLAIN = "plain Pillow loop"
OURS, AGAIN = "probe `image`", "the next version"


def build(folder: Path, files: int) -> None:
    """Write JPEGs of coloured noise and ramps, whose sizes are even over the range."""
    chance = random.Random(7)  # noqa: S311 - pictures, no secrets
    noise = Image.effect_noise((LARGEST, LARGEST), 60)
    ramp = Image.linear_gradient("L").resize((LARGEST, LARGEST))
    for number in range(files):
        size = chance.randint(SMALLEST, LARGEST), chance.randint(SMALLEST, LARGEST)
        left, top = chance.randint(0, LARGEST - size[0]), chance.randint(0, LARGEST - size[1])
        box = (left, top, left + size[0], top + size[1])
        bands = [
            layer.crop(box) for layer in chance.sample([noise, ramp, ramp.transpose(Image.Transpose.ROTATE_90)], 3)
        ]
        Image.merge("RGB", bands).save(folder / f"{number:06}.jpg", quality=chance.choice([80, 90]))


def decode(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.load()
        return picture.size


def plain(folder: Path) -> None:
    """Decode all files, as a script would."""
    paths = sorted(map(str, folder.iterdir()))
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.imap_unordered(decode, paths, CHUNK):
            pass
        pool.close()
        pool.join()


def prober(folder: Path, new: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Functions that probe all files, and then a version of which `new` files are new."""
    from prefect_stagegate.model import Entry
    from prefect_stagegate.model.measures import NO_PASSES
    from prefect_stagegate.spec import ContractSpec
    from prefect_stagegate.validations.files.file_probes import probe_files

    contract = ContractSpec.model_validate({"files": [{"match": "*.jpg", "probes": [{"image": {"mode": "RGB"}}]}]})
    entries = [Entry(path.name, path.stat().st_size, f"blake3:{path.name}") for path in sorted(folder.iterdir())]
    renamed = [Entry(entry.path, entry.size, f"blake3:new-{entry.path}") for entry in entries[:new]]
    passed = NO_PASSES

    def first() -> None:
        nonlocal passed
        files = probe_files(folder, entries, contract)
        passed = files.passed
        if files.defects or files.decoded != len(entries):
            sys.exit(f"the probe failed: {files.defects}")

    def again() -> None:
        files = probe_files(folder, [*renamed, *entries[new:]], contract, known=passed)
        if files.decoded != new:
            sys.exit(f"{files.decoded} files were probed again")

    return first, again


def measure(work: Callable[[], None]) -> tuple[float, float]:
    """The seconds that some work takes, and the processor's seconds, of processes that it starts and ends too."""
    before, started = os.times(), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - started, os.times()
    return seconds, sum(after[:4]) - sum(before[:4])


def in_new_process(what: str, folder: Path, new: int) -> list[Figures]:
    """Run one contender in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.probes", "--run", what, "--folder", str(folder), "--new", str(new)]
    figures: list[Figures] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return figures


def table(runs: dict[str, list[Figures]], files: int, new: int, load: float) -> str:
    rounds = len(runs[PLAIN])
    medians = {name: [statistics.median(figures) for figures in zip(*its, strict=True)] for name, its in runs.items()}
    floor = medians[PLAIN]
    lines = [
        f"{files:,} JPEGs of {SMALLEST} × {SMALLEST} to {LARGEST} × {LARGEST} pixels; medians of {rounds} rounds in"
        f" turn, a new process each, on {len(os.sched_getaffinity(0))} cores with a load average of {load:.1f} before"
        f" ({platform.machine()}, Python {platform.python_version()}, pillow {version('pillow')}).",
        "",
        "| what | seconds | × the plain loop | CPU seconds | × the plain loop |",
        "|---|---|---|---|---|",
    ]
    for name, (wall, cpu) in medians.items():
        label = f"{name}, {new} files new" if name == AGAIN else name
        lines.append(f"| {label} | {wall:.2f} | {wall / floor[0]:.2f} | {cpu:.2f} | {cpu / floor[1]:.2f} |")
    return "\n".join([*lines, "", "Again: `python -m benchmarks.probes`"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--new", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="print the table and leave the page alone")
    parser.add_argument("--run", choices=("plain", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        works = [lambda: plain(options.folder)] if options.run == "plain" else prober(options.folder, options.new)
        print(json.dumps([measure(work) for work in works]))
        return
    load = os.getloadavg()[0]
    runs: dict[str, list[Figures]] = {PLAIN: [], OURS: [], AGAIN: []}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        build(folder, options.files)
        for number in range(options.rounds):
            runs[PLAIN] += in_new_process("plain", folder, options.new)
            first, again = in_new_process("ours", folder, options.new)
            runs[OURS].append(first)
            runs[AGAIN].append(again)
            print(f"round {number + 1}: { {name: its[-1] for name, its in runs.items()} }", flush=True)
    text = table(runs, options.files, options.new, load)
    print(text)
    if not options.dry_run:
        write_section("probes", text)


if __name__ == "__main__":
    main()
