"""Look at the inbox of many datasets with many versions on S3, and write the figures into docs/performance.md.

    python -m benchmarks.inbox [--datasets 200] [--versions 50] [--rounds 5] [--folder DIR]

The catalog is that of `tests/support/large_catalog.py`, on SeaweedFS on this machine. Each round is a new process of
`stagegate status`. The first one on a node also checks the logs of all refs, once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.section import write_section
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import open_records
from prefect_stagegate.jobs.environment import capture_environment
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.review.status import status
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.testing.servers import seaweedfs
from prefect_stagegate.unreadable import UnreadableRecords
from tests.support.large_catalog import write_large_catalog
from tests.support.records import CountedRecords

URL = "s3://catalog/stagegate"


@dataclass(frozen=True)
class Run:
    """One process: its seconds, and those of a processor that it took."""

    wall: float
    cpu: float


def run_status(environment: Mapping[str, str]) -> Run:
    """Run `stagegate status` in a process of its own."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "prefect_stagegate", "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if "set-000@pilot" not in done.stdout or done.stderr:
        raise SystemExit(done.stdout[-2000:] + done.stderr)
    return Run(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def count_requests(options: Mapping[str, str], cache: Path) -> Counter[str]:
    """What one look asks of the store."""
    workspace = open_workspace(cache, URL, catalog_options=options)
    records = CountedRecords(open_records(URL, options))
    status(replace(workspace, catalog=Catalog(records, memory=workspace.cache.memory)), "", UnreadableRecords())
    return records.calls


def report(first: Run, runs: list[Run], calls: Counter[str], datasets: int, versions: int, load: float) -> str:
    """What goes between the markers of docs/performance.md."""
    walls, cpus = sorted(run.wall for run in runs), [run.cpu for run in runs]
    machine = f"{os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()})"
    lines = [
        f"{datasets:,} datasets with {versions:,} versions each and 2 targets, on SeaweedFS on the same machine; "
        f"{len(runs)} processes one after the other; {machine}, load average {load:.1f}, "
        f"{datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| `stagegate status` | wall s, median | fastest | CPU s of the process, median |",
        "|---|---:|---:|---:|",
        f"| first on a node, which checks all logs | {first.wall:.1f} | | {first.cpu:.1f} |",
        f"| after that | {statistics.median(walls):.2f} | {walls[0]:.2f} | {statistics.median(cpus):.2f} |",
        "",
        f"It makes {calls.total():,} requests, {calls.total() / datasets:.1f} a dataset: {calls['list']:,} listings, "
        f"{calls['read']:,} records, and {calls['read_end']:,} looks whether one is there. That number does not grow "
        "with versions.",
        "",
        f"Again: `python -m benchmarks.inbox --datasets {datasets} --versions {versions} --rounds {len(runs)}`",
    ]
    return "\n".join(lines)


def main() -> None:
    """Build the catalog, look at it again and again, and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=200)
    parser.add_argument("--versions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the store's files there, and use them again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, seaweedfs(arguments.folder or Path(made) / "s3") as server:
        built = (arguments.folder or Path(made)) / "built"
        if not built.exists():
            server.bucket("catalog")
            records = open_records(URL, server.storage_options)
            captured = capture_environment(Settings.from_environment({}), Path(made))
            write_large_catalog(records, captured, arguments.datasets, arguments.versions)
            built.touch()
        environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": server.endpoint_url,
            "AWS_ACCESS_KEY_ID": server.key,
            "AWS_SECRET_ACCESS_KEY": server.secret,
            "STAGEGATE_CATALOG": URL,
            "STAGEGATE_CACHE": f"{made}/cache",
        }
        first = run_status(environment)
        runs = [run_status(environment) for _ in range(arguments.rounds)]
        load = os.getloadavg()[0]
        calls = count_requests(server.storage_options, Path(made) / "cache")
    text = report(first, runs, calls, arguments.datasets, arguments.versions, load)
    write_section("inbox", text)
    print(json.dumps([run.__dict__ for run in (first, *runs)]))
    print(text)


if __name__ == "__main__":
    main()
