"""Run benchmarks, each in a process of its own; each writes its part of docs/performance.md.

python -m benchmarks.run [transfer validation gate prefect_share]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHMARKS = ("transfer", "validation", "probes", "gate", "prefect_share")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=BENCHMARKS, default=BENCHMARKS, help="all when left out")
    for name in parser.parse_args().names:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=True)
