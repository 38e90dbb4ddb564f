"""Compare the rows of two versions, beside DuckDB's own anti-join, and write the figures into docs/performance.md.

    python -m benchmarks.rows [--rows 20000000] [--files 40] [--rounds 3] [--folder DIR] [--dry-run]

Three versions of a table of 10 columns are staged: the first, one with 1 % of the rows changed in all files, and one
with as many changed in one file alone. Each run is a new process; figures are medians, with those of child processes.
The anti-join reads both versions' files in both directions, with the same bounds of memory and threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import duckdb

from benchmarks.launcher import Usage, launch
from benchmarks.section import write_section

STAGEGATE = str(Path(sys.executable).parent / "stagegate")
VERSIONS = {"before": "false", "changed": "i % 100 = 7", "one-file": "i % 100 = 7 AND file = 0"}
"""The condition of the rows that a version has changed."""
COLUMNS = """
    i AS id, i // 7 AS trip, (i * 7919) % 1000003 AS fare_cents, (i % 977) / 8.0 + {change} AS distance,
    'zone ' || (i % 263) AS pickup, 'zone ' || (i % 251) AS dropoff,
    DATE '2013-01-01' + CAST(i % 365 AS INTEGER) AS day,
    i % 6 AS passengers, md5(CAST(i AS VARCHAR)) AS receipt, i % 2 = 0 AS is_card
"""
ANTI_JOIN = """
import duckdb, sys
old, new, scratch, memory = sys.argv[1:]
with duckdb.connect(config={"memory_limit": memory, "temp_directory": scratch, "preserve_insertion_order": False}) as c:
    c.execute("SET enable_progress_bar = false")  # which DuckDB draws into the output of `python -c`
    for a, b in ((old, new), (new, old)):
        names = [row[0] for row in c.execute(f"DESCRIBE FROM read_parquet('{a}/*.parquet')").fetchall()]
        print(c.execute(f"SELECT count(*) FROM read_parquet('{a}/*.parquet') ANTI JOIN read_parquet('{b}/*.parquet') "
                        f"USING ({', '.join(names)})").fetchall()[0][0])
"""
MEMORY = "1GiB"


def build(folder: Path, rows: int, files: int) -> None:
    """Write the three versions. Files that a version did not change are links to the first one's."""
    size = rows // files
    with duckdb.connect() as connection:
        for name, condition in VERSIONS.items():
            (folder / name).mkdir()
            for file in range(files):
                path = folder / name / f"{file:04}.parquet"
                if name == "one-file" and file:
                    path.hardlink_to(folder / "before" / path.name)
                    continue
                change = f"CASE WHEN {condition} THEN 1 ELSE 0 END".replace("file", str(file))
                source = f"range({file * size}, {(file + 1) * size}) AS t(i)"
                query = f"SELECT {COLUMNS.format(change=change)} FROM {source}"  # noqa: S608 - words of ours
                connection.execute(f"COPY ({query}) TO '{path}'")


def stage(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Stage the versions; returns their digests by name."""
    digests = {}
    for name in VERSIONS:
        spec = {"stagegate": 1, "dataset": "trips", "sources": [{"url": str(folder / name)}]}
        spec["contract"] = {"tables": {"trips": {"files": "*.parquet"}}}
        (folder / f"{name}.yaml").write_text(json.dumps(spec))
        command = [STAGEGATE, "stage", str(folder / f"{name}.yaml"), "--json"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        digests[name] = json.loads(done.stdout)["digest"]
    return digests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="a folder on the volume to measure")
    parser.add_argument("--dry-run", action="store_true", help="print the figures and leave the page alone")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    temporary = tempfile.TemporaryDirectory(prefix="stagegate-bench-", dir=options.folder, ignore_cleanup_errors=True)
    with temporary as place:
        folder = Path(place)
        build(folder, options.rows, options.files)
        environment = {
            **{key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ},
            "HOME": place,
            "STAGEGATE_CACHE": f"{place}/cache",
            "STAGEGATE_CATALOG": f"{place}/catalog",
        }
        digests = stage(folder, environment)
        before, changed, one_file = (f"trips@{digest}" for digest in digests.values())
        diff, folders = [STAGEGATE, "diff", "--rows", "--json"], [str(folder / name) for name in ("before", "changed")]
        commands = {
            "anti-join, both directions": [sys.executable, "-c", ANTI_JOIN, *folders, f"{place}/scratch", MEMORY],
            "`diff --rows`": [*diff, before, changed],
            "`diff --rows --key id`": [*diff, before, changed, "--key", "id"],
            f"`diff --rows`, {options.files - 1} of {options.files} files equal": [*diff, before, one_file],
        }
        runs: dict[str, list[Usage]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                usage, printed = launch(command, environment, folder)
                require_counts(name, printed, options.rows, options.files)
                runs[name].append(usage)
    text = table(runs, options.rows, options.files, load)
    print(text)
    if not options.dry_run:
        write_section("rows", text)


def require_counts(name: str, printed: str, rows: int, files: int) -> None:
    """End where a contender did not find the rows that were changed."""
    size = rows // files
    expected = len(range(7, size if "equal" in name else size * files, 100))
    if name.startswith("anti"):
        counts = list(map(int, printed.split()))
    else:
        (found,) = json.loads(printed)["row_changes"]["tables"]
        counts = [found["changed"]] if "key" in name else [found["added"], found["gone"]]
    if set(counts) != {expected}:
        sys.exit(f"{name} found {counts}, not {expected}")


def table(runs: dict[str, list[Usage]], rows: int, files: int, load: float) -> str:
    """The figures as Markdown: medians over the rounds."""
    medians = {name: Usage(*map(statistics.median, zip(*of_name, strict=True))) for name, of_name in runs.items()}
    (base, *_) = medians.values()
    lines = [
        f"{rows:,} rows × 10 columns in {files} Parquet files, 1 % of them changed; medians of "
        f"{len(next(iter(runs.values())))}, a new process each, on {os.cpu_count()} cores with a load average of "
        f"{load:.1f} before ({platform.machine()}, Python {platform.python_version()}, duckdb {version('duckdb')}).",
        "",
        "| | wall | × anti-join | peak memory |",
        "|---|---|---|---|",
        # No CPU: processes that a fork server begins are not counted.
        *(
            f"| {name} | {usage.wall:.1f} s | {usage.wall / base.wall:.2f} | {usage.memory:,.0f} MiB |"
            for name, usage in medians.items()
        ),
    ]
    return "\n".join([*lines, "", f"Both hold {MEMORY} of rows in memory and spill the rest. Again: `make bench-rows`"])


if __name__ == "__main__":
    main()
