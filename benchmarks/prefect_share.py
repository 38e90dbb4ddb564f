"""Stage few and many small files, by the engine alone and as a flow, and write what Prefect adds.

    python -m benchmarks.prefect_share [--rounds 7] [--folder DIR] [--dry-run]

They take turns, each in a new process and into new folders, against one Prefect server that runs already:
`operations.stage.stage`, the flow `stage` with its run, its task, events, asset and progress, and a flow of one task
that does nothing. `done` is from the call until the run is Completed on the server, which is when others go on.
`process` has the interpreter's start, the imports, and what Prefect still waits for and sends at the end.

API calls are counted by a relay in front of the server, as they pass.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from benchmarks.section import write_section
from prefect_stagegate.testing.launching import tied_to_parent
from prefect_stagegate.testing.servers import free_port
from tests.support.calls import CallCounter

SETS = (10, 10_000)
SIZE = 1000
"""Bytes of a file."""


@dataclass(frozen=True)
class Run:
    """One process's figures: seconds, and what the server saw of it."""

    done: float
    process: float
    cpu: float
    calls: Counter[str] = field(default_factory=Counter)


# ── workers: what runs in a new process ─────────────────────────────────────────────────────────────────────────────


def work_engine(spec: dict[str, Any], cache: str, catalog: str) -> dict[str, Any]:
    """Stage by the engine alone."""
    from prefect_stagegate.jobs.open_workspace import open_workspace
    from prefect_stagegate.jobs.staging.stage import stage

    begun = time.monotonic()
    stage(open_workspace(cache, catalog), spec)
    return {"done": time.monotonic() - begun}


def work_flow(spec: dict[str, Any], cache: str, catalog: str) -> dict[str, Any]:
    """Stage as a flow."""
    from prefect_stagegate.flows import stage

    return _timed(stage, spec, cache, catalog)


def work_nothing(spec: dict[str, Any], cache: str, catalog: str) -> dict[str, Any]:
    """Run what any flow costs: one with one task, and nothing in it."""
    from prefect import flow, task

    @task
    def nothing(spec: dict[str, Any]) -> None:
        del spec

    @flow
    def empty(spec: dict[str, Any], cache: str, catalog: str) -> None:
        del cache, catalog
        nothing(spec)

    return _timed(empty, spec, cache, catalog)


def _timed(flow: Any, *parameters: Any) -> dict[str, Any]:
    begun = time.time()
    state = flow(*parameters, return_state=True)
    assert state.is_completed(), state  # noqa: S101
    return {"done": state.timestamp.timestamp() - begun}


WORKERS = {"engine": work_engine, "flow": work_flow, "nothing": work_nothing}
LABELS = ("engine", "flow", "a flow of one empty task")


# ── rounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """A Prefect server with an empty database; gives its API's address."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", str(port), "--no-ui"]
    environment = {**os.environ, **_quiet(folder)}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(tied_to_parent(command), env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/health", timeout=1).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def _quiet(folder: Path) -> dict[str, str]:
    return {"PREFECT_HOME": str(folder / "home"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


@dataclass
class Bench:
    """The rounds of one number of files."""

    files: int
    folder: Path
    counter: CallCounter
    runs: dict[str, list[Run]] = field(default_factory=lambda: {name: [] for name in WORKERS})

    def __post_init__(self) -> None:
        (self.folder / "source").mkdir(parents=True)
        for number in range(self.files):
            (self.folder / f"source/{number:05}.bin").write_bytes(number.to_bytes(4) * (SIZE // 4))

    def round(self, number: int) -> None:
        """Let each run once, beginning with another one each time."""
        names = list(WORKERS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            self.runs[name].append(self._run(name, self.folder / f"{name}-{number}"))
            print(f"{self.files} files, round {number + 1}, {name}: {self.runs[name][-1]}", flush=True)

    def _run(self, name: str, out: Path) -> Run:
        spec = {"stagegate": 1, "dataset": f"share-{out.name}", "sources": [{"url": str(self.folder / "source")}]}
        job = json.dumps([spec, str(out / "cache"), str(out / "catalog")])
        environment = {"PATH": os.environ["PATH"], "PREFECT_API_URL": self.counter.url, **_quiet(self.folder)}
        os.sync()  # what an earlier run left to the kernel is not this one's burden
        before, spent, begun = len(self.counter.calls), _cpu(), time.monotonic()
        command = [sys.executable, "-m", __spec__.name, "--worker", name, job]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        process, cpu = time.monotonic() - begun, _cpu() - spent
        if done.returncode:
            sys.exit(f"{name} failed: {done.stderr}")
        said = json.loads(done.stdout.splitlines()[-1])
        calls = Counter(map(str, self.counter.calls[before:]))
        return Run(said["done"], process, cpu, calls)

    def rows(self) -> list[str]:
        """The medians as lines of the table."""
        medians = {name: self._median(name) for name in WORKERS}
        lines = [
            f"| {self.files:,} files, {label} | {done:.2f} | {process:.2f} | {cpu:.2f} | {calls} |"
            for (done, process, cpu, calls), label in zip(medians.values(), LABELS, strict=True)
        ]
        share = (f"**{medians['flow'][at] - medians['engine'][at]:.2f}**" for at in range(3))
        return [*lines, f"| *Prefect's share* | {' | '.join(share)} | |"]

    def _median(self, name: str) -> tuple[float, float, float, int]:
        """Of the seconds until done, of the process and the processor, and of the API calls."""
        runs = self.runs[name]
        return (
            statistics.median(run.done for run in runs),
            statistics.median(run.process for run in runs),
            statistics.median(run.cpu for run in runs),
            statistics.median_low(sum(run.calls.values()) for run in runs),
        )


def _cpu() -> float:
    """Processor time of all processes that ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def page(benches: list[Bench], rounds: int, load: float) -> str:
    """What goes between the markers of docs/performance.md."""
    lines = [
        f"Local files of {SIZE:,} B, staged by the engine alone and by the flow `stage` on a Prefect server that runs"
        f" already; medians of {rounds} rounds in turn, a new process and folder each, on {os.cpu_count()} cores that"
        f" the server uses too ({platform.machine()}, Python {platform.python_version()}, Prefect"
        f" {version('prefect')}), load average {load:.1f} before, {time.strftime('%Y-%m-%d')}.",
        "",
        "| | done s | process s | CPU s | API calls |",
        "|---|---|---|---|---|",
        *(row for bench in benches for row in bench.rows()),
        "",
        "`done` is from the call until the run is Completed on the server; `process` has the interpreter's start and"
        " imports, and a second in which Prefect's heartbeats end.",
        "",
        "Again: `python -m benchmarks.prefect_share`",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="a folder on the volume to measure")
    parser.add_argument("--dry-run", action="store_true", help="print the table and leave the page alone")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, job = options.worker
        print(json.dumps(WORKERS[name](*json.loads(job))))
        return
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="stagegate-share-", dir=options.folder) as made,
        prefect_server(Path(made)) as url,
        CallCounter(url) as counter,
    ):
        benches = [Bench(files, Path(made) / str(files), counter) for files in SETS]
        for number in range(options.rounds):
            for bench in benches:
                bench.round(number)
    text = page(benches, options.rounds, load)
    print(text)
    if not options.dry_run:
        write_section("prefect share", text)


if __name__ == "__main__":
    main()
