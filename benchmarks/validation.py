"""Judge one large table with each engine, and write the figures into docs/performance.md.

    python -m benchmarks.validation [--rows 20000000] [--files 20] [--rounds 3] [--engine duckdb] [--merging]

Every round is a new worker process, as in production; the contenders take turns. Peak memory is the process's own,
without Spark's Java.
`plain SQL` makes the same counts by hand-written queries of DuckDB: no engine of expectations can be much faster.
`one file new` knows the counts of all other files from an earlier validation.
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
import time
from dataclasses import asdict, astuple, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import duckdb

from benchmarks.section import write_section
from prefect_stagegate.doors import load
from prefect_stagegate.model.measures import NO_VALUES, FileValues
from prefect_stagegate.validations.engines.engine import ENGINES
from prefect_stagegate.validations.queries.duck import THREADS
from prefect_stagegate.validations.worker.confinement import environment
from prefect_stagegate.validations.worker.process_limits import SHARE, ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, TableJob, TableReport

LIMITS = ValidationLimits()

SUITE = {
    "expectations": [
        {"type": kind, "kwargs": kwargs}
        for kind, kwargs in (
            ("expect_column_values_to_be_unique", {"column": "id"}),
            ("expect_column_values_to_not_be_null", {"column": "id"}),
            ("expect_column_values_to_not_be_null", {"column": "carrier", "mostly": 0.9}),
            ("expect_column_values_to_be_in_set", {"column": "carrier", "value_set": [f"C{n}" for n in range(16)]}),
            ("expect_column_values_to_be_between", {"column": "distance", "min_value": 0, "max_value": 5000}),
            ("expect_column_values_to_be_between", {"column": "delay", "min_value": -60, "max_value": 1440}),
            ("expect_column_mean_to_be_between", {"column": "delay", "min_value": 0, "max_value": 1000}),
            ("expect_column_stdev_to_be_between", {"column": "delay", "min_value": 0, "max_value": 1000}),
            ("expect_column_min_to_be_between", {"column": "distance", "min_value": 0}),
            ("expect_column_max_to_be_between", {"column": "distance", "max_value": 5000}),
            ("expect_column_values_to_not_be_null", {"column": "time_hour"}),
            ("expect_table_row_count_to_be_between", {"min_value": 1}),
        )
    ]
}
PLAIN = f"""
import duckdb, sys
table = f"read_parquet('{{sys.argv[1]}}/*.parquet')"
database = duckdb.connect(sys.argv[2] + "/plain.duckdb", config={{
    "memory_limit": "{LIMITS.memory // SHARE}B", "threads": "{THREADS}", "temp_directory": sys.argv[2] + "/spill",
    "preserve_insertion_order": "false",
}})
print("imported", flush=True)
print(database.sql(f'''
    SELECT count(*), count(id), count(carrier), count(time_hour), avg(delay), stddev_samp(delay), min(distance),
           max(distance), count_if(carrier NOT IN ({", ".join(f"'C{n}'" for n in range(16))})),
           count_if(NOT distance BETWEEN 0 AND 5000), count_if(NOT delay BETWEEN -60 AND 1440)
    FROM {{table}}''').fetchall())
print(database.sql(f"SELECT count(*) FROM (SELECT id FROM {{table}} GROUP BY id HAVING count(*) > 1)").fetchall())
"""  # noqa: S608 - the names are ours
"""The same counts by hand: the table's folder and a folder for temporary data are its arguments."""
TIMED_WORKER = """
import sys, time
import sqlalchemy as sa
from prefect_stagegate.validations.worker import worker

seconds, started = [], []
sa.event.listen(sa.Engine, "before_cursor_execute", lambda *_: started.append(time.monotonic()))
sa.event.listen(sa.Engine, "after_cursor_execute", lambda *_: seconds.append(time.monotonic() - started.pop()))
judge = worker._judge

def judge_and_report(*arguments):
    judge(*arguments)
    print("queries", sum(seconds), file=sys.stderr)

# The process that judges is forked, so it must say itself what its queries took.
worker._judge = judge_and_report
worker.main()
"""
"""The worker, which also prints how long the database took for its queries."""
ROWS = """
COPY (
    SELECT i AS id, 'C' || hash(i) % 16 AS carrier, (hash(i + 1) % 5000)::INTEGER AS distance,
           (hash(i + 2) % 144000) / 100.0 AS delay, TIMESTAMP '2013-01-01' + to_seconds(i) AS time_hour
    FROM range({start}, {stop}) rows(i)
) TO '{file}'
"""


@dataclass(frozen=True)
class Run:
    """One worker's figures: seconds from start to end, after the import and in queries, and its peak memory in MB."""

    wall: float
    judging: float
    queries: float
    peak: float


def build(view: Path, rows: int, files: int) -> list[str]:
    """Write the table as Parquet files and return their names."""
    names = [f"part-{number:04}.parquet" for number in range(files)]
    each = rows // files
    with duckdb.connect() as connection:
        for number, name in enumerate(names):
            connection.execute(ROWS.format(start=number * each, stop=(number + 1) * each, file=view / name))
    return names


def plain(view: Path) -> Run:
    """Run the queries of `PLAIN` in a new process."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-c", PLAIN, view, scratch], stdout=subprocess.PIPE)
        assert process.stdout is not None  # noqa: S101
        process.stdout.readline()
        imported = time.monotonic()
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    ended = time.monotonic()
    if status:
        sys.exit("the plain queries failed")
    return Run(ended - started, ended - imported, ended - imported, usage.ru_maxrss * 1024 / 1e6)


def judge(engine: str, view: Path, files: list[str], known: FileValues = NO_VALUES) -> tuple[Run, FileValues]:
    """Have a new worker judge the table."""
    job = TableJob("trips", engine, SUITE, str(view), files, (), {file: f"blake3:{file}" for file in files}, known)
    rights = ENGINES[engine].rights
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as stderr:
        started = time.monotonic()
        worker = subprocess.Popen(
            [sys.executable, "-P", "-c", TIMED_WORKER, "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(os.environ, scratch, load(rights) if rights else None),
        )
        assert worker.stdin is not None  # noqa: S101
        assert worker.stdout is not None  # noqa: S101
        what = {"tables": [asdict(job)], "judged": [], "lint": False, "data_docs": False, "rights": rights}
        bounds = {"scratch": scratch, "memory": LIMITS.memory, "spill": LIMITS.spill}
        worker.stdin.write(json.dumps({**what, **bounds}).encode() + b"\n")
        worker.stdin.flush()
        imported = started
        report = None
        for line in worker.stdout:
            message = json.loads(line)
            if "progress" in message:
                imported = time.monotonic()
            elif "table" in message:
                report = TableReport.from_json(message["table"])
        ended = time.monotonic()
        _, _, usage = os.wait4(worker.pid, 0)
        worker.returncode = 0
        stderr.seek(0)
        log = stderr.read().decode()
        if report is None or any(judgement.verdict is not ExpectationVerdict.PASSED for judgement in report.judgements):
            sys.exit(f"{engine}: {report}\n{log}")
    queries = float(log.rpartition("queries ")[2])
    return Run(ended - started, ended - imported, queries, usage.ru_maxrss * 1024 / 1e6), report.values


def without(values: FileValues, file: str) -> FileValues:
    """What was known before a file came."""
    return replace(values, files={digest: row for digest, row in values.files.items() if digest != f"blake3:{file}"})


def table(runs: dict[str, list[Run]], rows: int, files: int, rounds: int, load: float) -> str:
    """The figures as Markdown: medians over the rounds."""
    expectations = len(SUITE["expectations"])
    libraries = ", ".join(f"{name} {version(name)}" for name in ("great-expectations", "duckdb", "pandas"))
    lines = [
        f"{expectations} expectations over {rows:,} rows in {files} Parquet files; medians of {rounds}, a new process"
        f" each, on {os.cpu_count()} cores with a load average of {load:.1f} before"
        f" ({platform.machine()}, Python {platform.python_version()}, {libraries}).",
        "",
        "| engine | whole process | after the import | in queries | peak memory |",
        "|---|---|---|---|---|",
    ]
    for engine, its in runs.items():
        wall, judging, queries, peak = (statistics.median(column) for column in zip(*map(astuple, its), strict=True))
        in_queries = f"{queries:.2f} s" if queries else "–"
        lines.append(f"| {engine} | {wall:.1f} s | {judging:.1f} s | {in_queries} | {peak:,.0f} MB |")
    lines += ["", "Again: `python -m benchmarks.validation`"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--merging", action="store_true", help="leave out uniqueness, which is counted over all files")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="all when left out")
    parser.add_argument("--dry-run", action="store_true", help="print the table and leave the page alone")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    engines = options.engine or list(ENGINES)
    if options.merging:
        del SUITE["expectations"][0]
    runs: dict[str, list[Run]] = {"plain SQL": [], **{engine: [] for engine in engines}, "duckdb, one file new": []}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        files = build(folder, options.rows, options.files)
        for number in range(options.rounds):
            if not options.merging:
                runs["plain SQL"].append(plain(folder))
            known = NO_VALUES
            for engine in engines:
                run, values = judge(engine, folder, files)
                runs[engine].append(run)
                known = values if engine == "duckdb" else known
            if known is not NO_VALUES:
                runs["duckdb, one file new"].append(judge("duckdb", folder, files, without(known, files[-1]))[0])
            print(f"round {number + 1}: { {name: its[-1] for name, its in runs.items() if its} }", flush=True)
    runs = {name: its for name, its in runs.items() if its}
    text = table(runs, options.rows // options.files * options.files, options.files, options.rounds, load)
    print(text)
    if not options.dry_run:
        write_section("validation", text)


if __name__ == "__main__":
    main()
