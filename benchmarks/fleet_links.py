"""Stage one version on five nodes behind links of a given rate: what the source sends, and when the last node is ready.

    python -m benchmarks.fleet_links [--files 400] [--size 5MB] [--rate 200mbit] [--dry-run]

Takes root: each node, the source and the Prefect server have a network namespace of their own on this machine. The
yardstick is one node that stages the version alone over its link, in the same run.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.section import write_section
from prefect_stagegate.units import bytes_text, parse_size
from tests.plugins.fleet.fleet_links import DATASET, running_fleet

NODES = ("n1", "n2", "n3", "n4", "n5")
ALONE = "alone"


def measure(files: int, size: int, rate: str) -> str:
    """Stage a fleet, and return the section of the page."""
    with tempfile.TemporaryDirectory() as folder, running_fleet(Path(folder), [*NODES, ALONE]) as fleet:
        fleet.create_pool()
        digest = fleet.deliver(files, size)
        alone = fleet.add_node(ALONE, serve=False, work=False)
        fleet.limit(rate)
        began, sent = time.monotonic(), fleet.source.sent
        fleet.run(alone, "stagegate", "stage", f"{DATASET}@{digest}")
        one_copy, one_copy_sent = time.monotonic() - began, fleet.source.sent - sent
        fleet.nodes.pop(ALONE)
        # Nobody is to read from it.
        (Path(folder) / "catalog/nodes" / f"{ALONE}.json").unlink()
        for name in NODES:
            fleet.add_node(name)
        fleet.limit(rate)
        sent = fleet.source.sent
        result = fleet.stage(f"{DATASET}@latest")
        sent = fleet.source.sent - sent
        seconds = sorted(float(report["seconds"]) for report in result["reports"])
    if {report["digest"] for report in result["reports"]} != {digest}:
        raise SystemExit(f"A node is missing: {result}")
    rows = [
        (
            "bytes that the source sent, headers included",
            one_copy_sent,
            bytes_text(one_copy_sent),
            bytes_text(sent),
            sent,
        ),
        ("seconds to the first node", one_copy, f"{one_copy:.0f}", f"{seconds[0]:.0f}", seconds[0]),
        ("to the median node", one_copy, "", f"{statistics.median(seconds):.0f}", statistics.median(seconds)),
        ("to the last node", one_copy, "", f"{seconds[-1]:.0f}", seconds[-1]),
    ]
    machine = f"{os.cpu_count()} cores ({platform.machine()}, Linux {platform.release()})"
    again = f"--files {files} --size {bytes_text(size).replace(' ', '')} --rate {rate}"
    return "\n".join(
        [
            f"{len(NODES)} nodes, each with its source and the others behind a link of {rate} in either direction "
            f"(network namespaces, `tc tbf`); {files:,} files of {bytes_text(size)}; all on {machine}, "
            f"{datetime.now(UTC):%Y-%m-%d}.",
            "",
            "| | one node alone | five nodes by `stage_fleet` | ratio |",
            "|---|---:|---:|---:|",
            *(f"| {what} | {one} | {five} | {value / base:.2f} |" for what, base, one, five, value in rows),
            "",
            "Each node's seconds have the second reading of all its bytes from its disk.",
            "",
            f"Again, as root: `python -m benchmarks.fleet_links {again}`",
        ]
    )


def main() -> None:
    """Measure, and write the page's section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--size", type=parse_size, default=parse_size("5MB"))
    parser.add_argument("--rate", default="200mbit")
    parser.add_argument("--dry-run", action="store_true", help="print the section, and leave the page as it is")
    arguments = parser.parse_args()
    section = measure(arguments.files, arguments.size, arguments.rate)
    print(section)
    if not arguments.dry_run:
        write_section("fleet links", section)


if __name__ == "__main__":
    main()
