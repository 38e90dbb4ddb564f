"""Crashes by hand: those that the command line names, or a sample.

JOB:KIND:NUMBER:FAULT            by the shim
strace:JOB:CALL:NUMBER:FAULT     by strace
JOB:KIND:NUMBER:CUT:MOUNT        a power cut
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from crash import power, trace
from crash.jobs import JOBS
from crash.lab import Lab, Point, Verdict, spread

MEMORY = Path("/dev/shm")


def main() -> int:
    """Crash what the command line names, and print what was wrong."""
    parser = argparse.ArgumentParser(prog="crash", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("points", nargs="*", help="as above; without any: a sample of those by the shim")
    parser.add_argument("--count", type=int, default=100, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="which")
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), help="of which jobs")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crash-", dir=MEMORY if MEMORY.is_dir() else None))
    lab = Lab(folder)
    try:
        texts = options.points or map(str, spread(list(lab.points(options.jobs)), options.count, options.seed))
        failed = [verdict for verdict in _crash_each(lab, texts, folder) if _tell(verdict)]
    finally:
        lab.close()
    print(f"{len(failed)} failed; what they left is in {folder}")
    return 1 if failed else 0


def _crash_each(lab: Lab, texts: Iterable[str], folder: Path) -> Iterator[Verdict]:
    for text in texts:
        if text.startswith("strace:"):
            yield trace.crash(lab, Point.parse(text.removeprefix("strace:")))
        elif text.count(":") == 4:
            yield power.cut_power(lab, power.Cut.parse(text), folder)
        else:
            yield lab.crash(Point.parse(text))


def _tell(verdict: Verdict) -> bool:
    well = "well" if verdict.reached else "not reached"
    print(verdict if verdict.problems else f"{verdict.again or verdict.point}: {well}", flush=True)
    return bool(verdict.problems)


if __name__ == "__main__":
    sys.exit(main())
