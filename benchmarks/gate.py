"""Decide a gate of 40 checks by evidence that is there, and write the figures into docs/performance.md.

    python -m benchmarks.gate [--rounds 9]

The version was checked 1, 100 and 1,000 times before; nothing is asked anew. The catalog's calls are counted, too: on
an object store each is a request.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.section import write_section
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.gate_records import put_evidence
from prefect_stagegate.catalog.records import open_records
from prefect_stagegate.gate import CHECKS, known_checks
from prefect_stagegate.gate.evidence_rules import binding
from prefect_stagegate.jobs.address import resolve
from prefect_stagegate.jobs.gating.check import build_context, check
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Evidence, Outcome
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.workspace import Workspace
from tests.support.records import CountedRecords

CHECKED = (1, 100, 1000)
SIZE = 40
THINGS = Address("things")


@dataclass(frozen=True)
class Run:
    """The figures of one state of the catalog: seconds, and calls of the catalog."""

    wall: float
    cpu: float
    calls: Counter[str]


def staged(folder: Path) -> Workspace:
    """A node with one version whose gate requires 40 checks."""
    (folder / "nas").mkdir()
    (folder / "nas/a.csv").write_text("id\n1\n")
    workspace = open_workspace(folder / "cache", folder / "catalog")
    stage(workspace, a_spec(folder))
    return workspace


def a_spec(folder: Path) -> Spec:
    """A spec with a gate of 40 checks, without those that speak of people's answers or of a gate below."""
    asked = [name for name in sorted(CHECKS) if name not in ("approval", "digest")][:SIZE]
    return load_spec(
        {
            "stagegate": 1,
            "dataset": "things",
            "sources": [{"url": str(folder / "nas")}],
            "gates": {"pilot": {"require": asked}},
        },
        known_checks=known_checks(),
    )


def remember(workspace: Workspace, times: int) -> None:
    """Keep the answers that so many checks of the version would have left."""
    version = resolve(workspace, THINGS)
    gate = version.spec.gate("pilot")
    context = build_context(workspace, version, gate)
    answers = [
        Evidence(
            asked.check,
            Outcome.PASS,
            "it was asked",
            CHECKS[asked.check].owner,
            scope=CHECKS[asked.check].scope,
            binding=binding(CHECKS[asked.check], asked, context),
            at="2026-01-01T00:00:00.000000Z",
        )
        for asked in gate.requirements
    ]
    for _ in range(times - 1):
        put_evidence(workspace.catalog, version.dataset, version.digest, answers[: SIZE // 4])
    put_evidence(workspace.catalog, version.dataset, version.digest, answers)


def measure(workspace: Workspace, rounds: int) -> Run:
    """Decide again and again, and give the medians."""
    records = CountedRecords(open_records(workspace.catalog.url, {}))
    counted = replace(workspace, catalog=Catalog(records, memory=workspace.cache.memory))
    walls, cpus = [], []
    for _ in range(rounds):
        records.calls.clear()
        wall, cpu = time.monotonic(), time.process_time()
        decision = check(counted, THINGS, "pilot")
        walls.append(time.monotonic() - wall)
        cpus.append(time.process_time() - cpu)
        if not decision.accepted or len(decision.checks) != SIZE:
            raise SystemExit(f"the gate asked something anew: {decision}")
    return Run(statistics.median(walls), statistics.median(cpus), records.calls.copy())


def write(runs: dict[int, Run], rounds: int) -> None:
    """Put the figures between their marks."""
    rows = [
        f"| {times:,} | {run.wall:.3f} s | {run.cpu:.3f} s | {run.calls['read']} | {run.calls['list']} | "
        f"{run.calls['create'] + run.calls['replace']} |"
        for times, run in runs.items()
    ]
    lines = (
        f"A gate of {SIZE} checks decided by evidence that holds, catalog on a local directory; medians of {rounds}, "
        f"in one process, without imports, on {os.cpu_count()} cores with a load average of {os.getloadavg()[0]:.1f} "
        f"({platform.machine()}, Python {platform.python_version()}).",
        "",
        "| checked before | wall | CPU | records read | listings | records written |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "Again: `python -m benchmarks.gate`",
    )
    write_section("gate", "\n".join(lines))


def main() -> None:
    """Measure each state of the catalog on a new node."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    runs = {}
    for times in CHECKED:
        with tempfile.TemporaryDirectory() as folder:
            workspace = staged(Path(folder))
            remember(workspace, times)
            runs[times] = measure(workspace, rounds)
            print(f"{times:>5} checks before: {runs[times]}")
    write(runs, rounds)


if __name__ == "__main__":
    main()
