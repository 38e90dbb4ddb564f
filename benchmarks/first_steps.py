"""What a stranger's first steps take on a fresh machine: time and disk of each, as a table in Markdown.

    python -m benchmarks.first_steps [--dist DIST] [--only demo|wheel|sdist]

Three ways: a clone to the end of `make demo`; a wheel, and an sdist, to a dataset of one's own at production. Each has
an empty home and empty caches of pip and uv, so all packages are downloaded. DIST has what `make release` built.
Seconds are wall time with the downloads: run it on a quiet machine. Sizes are of the folder without caches.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPEC = """\
stagegate: 1
dataset: trips
owners: {infra: ben@example.org}
sources: [{url: trips/}]
contract: {tables: {trips: {files: "*.csv", columns: {day: date, distance: double}}}}
gates:
  pilot: {require: [schema, nonempty]}
  production: {extends: pilot, require: [digest, {approval: {count: 1, from: [infra]}}]}
"""
OWN_DATA = {
    "stage files": "stagegate stage trips.yaml",
    "to pilot": "stagegate check trips --gate pilot && stagegate promote trips --to pilot",
    "approve": "! stagegate check trips --gate production && "
    "stagegate approve trips --to production --identity ben@example.org --reason seen",
    "to production": "stagegate check trips --gate production && stagegate promote trips --to production",
}
"""The commands of docs/start.md."""

Row = tuple[str, str, float, float]
"""Way, step, seconds, megabytes on the disk after it."""


def steps_of(way: str, dist: Path) -> dict[str, str]:
    """The shell commands of a way by step, run in its folder.

    Raises:
        SystemExit: DIST lacks the wheel or the sdist.
    """
    if way == "demo":
        return {"clone": f"git clone --quiet {ROOT} clone", "make demo": "make --directory clone demo"}
    built = next(dist.glob("prefect_*.whl" if way == "wheel" else "prefect_*.tar.gz"), None)
    if built is None:
        sys.exit(f"There is no {way} in {dist}: run `make release` first.")
    install = f"{sys.executable} -m venv venv && venv/bin/pip install --quiet {built.resolve()}"
    return {"install": install, "first command": "stagegate --version", **OWN_DATA}


def measure(way: str, dist: Path, folder: Path) -> Iterator[Row]:
    """Take the steps of a way; an error ends it with what the step printed."""
    home = folder / "home"
    (folder / "trips").mkdir(parents=True)
    home.mkdir()
    (folder / "trips/2026-03.csv").write_text("day,distance\n2026-03-01,4.2\n")
    (folder / "trips.yaml").write_text(SPEC)
    # Nothing of this machine but its programs: settings, caches and virtual environments stay outside.
    environment = {
        "HOME": str(home),
        "PATH": f"{folder}/venv/bin:{os.environ['PATH']}",
        "STAGEGATE_CACHE": str(folder / "cache"),
        "STAGEGATE_CATALOG": str(folder / "catalog"),
        "STAGEGATE_IDENTITY": "ada@example.org",
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))},
        "PIP_CACHE_DIR": str(home / "pip"),
        "UV_CACHE_DIR": str(home / "uv"),
    }
    for step, command in steps_of(way, dist).items():
        begun = time.monotonic()
        words = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - begun
        if done.returncode:
            sys.exit(f"{way}, {step}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        yield way, step, seconds, _megabytes(folder, home)


def _megabytes(folder: Path, home: Path) -> float:
    words = ["du", "--summarize", "--block-size=1", f"--exclude={home}", str(folder)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0]) / 1e6


def main() -> None:
    """Print the table, a row as soon as its step has ended."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dist", type=Path, default=ROOT / "dist")
    arguments.add_argument("--only", choices=["demo", "wheel", "sdist"])
    chosen = arguments.parse_args()
    print("| way | step | s | MB on the disk |\n|---|---|---:|---:|")
    for way in [chosen.only] if chosen.only else ["demo", "wheel", "sdist"]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
            for row in measure(way, chosen.dist, Path(made) / way):
                print("| {} | {} | {:.1f} | {:,.0f} |".format(*row), flush=True)


if __name__ == "__main__":
    main()
