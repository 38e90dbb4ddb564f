"""Crash points by hand: all of them, a sample, or one again."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from crash.jobs import JOBS
from crash.lab import Lab, Point


def main() -> int:
    """Crash what the command line names, and print what was wrong."""
    parser = argparse.ArgumentParser(prog="crash", description=__doc__)
    parser.add_argument("points", nargs="*", help="JOB:KIND:NUMBER:FAULT; without any: a sample")
    parser.add_argument("--count", type=int, default=0, help="how many; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="which")
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), help="of which jobs, where all points are taken")
    parser.add_argument("--workers", type=int, default=1, help="at the same time")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crash-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    lab = Lab(folder, asked.workers)
    try:
        points = list(map(Point.parse, asked.points))
        if not points:
            points = lab.sample(asked.count, asked.seed) if asked.count else list(lab.points(asked.jobs))
        begun, reached, failed = time.monotonic(), 0, 0
        for verdict in lab.crash_each(points):
            reached += verdict.reached
            if verdict.problems:
                failed += 1
                print(verdict, flush=True)
        seconds = time.monotonic() - begun
        print(f"{len(points)} points, {reached} reached, {failed} failed, {seconds:.1f} s; what failed is in {folder}")
    finally:
        lab.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
