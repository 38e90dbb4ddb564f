"""Run every benchmark, each in a process of its own; each writes its part of docs/performance.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = ("transfer.py", "validation.py", "gate.py", "prefect_share.py")

if __name__ == "__main__":
    for name in BENCHMARKS:
        subprocess.run([sys.executable, HERE / name], check=True)
