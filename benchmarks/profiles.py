"""Profile one large table, whole and with one new file, and write the figures into docs/performance.md.

    python -m benchmarks.profiles [--rows 20000000] [--files 100] [--rounds 3]

Every run is a new process. Its peak memory is its own, and the seconds are those of the profile alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.section import write_section
from benchmarks.validation import build
from prefect_stagegate.catalog.records import encode
from prefect_stagegate.plugins.profile.parts import profile_table
from prefect_stagegate.plugins.profile.profiles import NO_PARTS, ProfileParts, TableProfile
from prefect_stagegate.spec.csv_dialect import AS_USUAL
from prefect_stagegate.validations.queries.duck import queries
from prefect_stagegate.validations.queries.relations import TableFiles

Run = tuple[float, float, float, TableProfile, ProfileParts]
"""Seconds, seconds of processors, peak memory in MB, and what came out."""


def profile(files: list[Path], known: ProfileParts) -> Run:
    """Profile the table in this process."""
    started, busy = time.monotonic(), time.process_time()
    with queries("the table", files[0].parent) as database:
        names = {file.name: file.name for file in files}
        profiled = profile_table(database, TableFiles(files[0].parent, list(names), AS_USUAL), names, known=known)
    seconds, busy = time.monotonic() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return seconds, busy, peak, profiled.profile, profiled.parts


def in_a_new_process(files: list[Path], known: ProfileParts = NO_PARTS) -> Run:
    """The same in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(profile, (files, known))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="print the figures and leave the page alone")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    runs: dict[str, list[Run]] = {"first profile": [], "one file new": []}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in build(Path(folder), options.rows, options.files)]
        for _ in range(options.rounds):
            first = in_a_new_process(files)
            newest = files[-1].name
            earlier = replace(first[4], parts=tuple(part for part in first[4].parts if newest not in part.files))
            runs["first profile"].append(first)
            runs["one file new"].append(in_a_new_process(files, earlier))
    text = table(runs, options.rows, options.files, load)
    print(text)
    if not options.dry_run:
        write_section("profiles", text)


def table(runs: dict[str, list[Run]], rows: int, files: int, load: float) -> str:
    """The figures as Markdown: medians over the rounds."""
    _, _, _, whole, parts = runs["first profile"][0]
    rounds = len(runs["one file new"])
    lines = [
        f"{len(whole.columns)} columns of {rows:,} rows in {files} Parquet files; medians of {rounds}, a"
        f" new process each, on {os.cpu_count()} cores with a load average of {load:.1f} before ({platform.machine()},"
        f" Python {platform.python_version()}, duckdb {version('duckdb')}).",
        "",
        "| | wall | CPU | peak memory |",
        "|---|---|---|---|",
    ]
    for name, of_name in runs.items():
        seconds, busy, peak = (
            statistics.median(figures) for figures in zip(*(run[:3] for run in of_name), strict=True)
        )
        lines.append(f"| {name} | {seconds:.1f} s | {busy:.1f} s | {peak:,.0f} MB |")
    sizes = f"{len(encode(whole)) / 1e3:.0f} kB a version, {len(encode(parts)) / 1e6:.1f} MB for the files of the table"
    lines += ["", f"Kept in the catalog: {sizes}."]
    return "\n".join([*lines, "", "Again: `python -m benchmarks.profiles`"])


if __name__ == "__main__":
    main()
