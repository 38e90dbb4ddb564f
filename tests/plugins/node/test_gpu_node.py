"""`stagegate check` on a node whose NVIDIA library and `dcgmi` are ours, with data that a job is to be fed from."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.gate_records import read_evidence
from prefect_stagegate.jobs.open_workspace import open_workspace

RECORDED = Path(__file__).parent
Run = Callable[..., subprocess.CompletedProcess[str]]
KIB = 1024
SPEC = """
stagegate: 1
dataset: scans
sources: [{url: lake}]
job: {batch_size: 4, sample_size: 16KiB, step_time: 0.001, accelerators: 2, readers: 2}
gates:
  pilot:
    require:
      - gpu_inventory: {count: 1, model: NVIDIA H100 80GB HBM3, mig: disabled}
      - gpu_memory
      - gpu_idle
      - dcgm
      - feed_rate: {warn: 1.0e-9, fail: 1.0e-9}
      - utilisation: {warn: 1.0e-9, fail: 1.0e-9}
  anywhere:
    require: [nonempty, gpu_memory: {absent: not_applicable}, gpu_idle: {absent: not_applicable}]
"""


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of a node with the library and the command; what they answer lies beside the spec."""
    library, commands = tmp_path / "lib", tmp_path / "bin"
    library.mkdir()
    commands.mkdir()
    made = library / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(RECORDED / "fake_nvml.c")], check=True)
    (commands / "dcgmi").write_text(f"#!/bin/sh\ncat {tmp_path}/dcgmi.json\n")
    (commands / "dcgmi").chmod(0o755)
    return {
        "LD_LIBRARY_PATH": str(library),
        "PATH": f"{commands}:{os.environ['PATH']}",
        "FAKE_NVML": str(tmp_path / "nvml.txt"),
    }


@pytest.fixture
def staged(tmp_path: Path, run_stagegate: Run) -> Run:
    """The command, with a version of sixteen files on the node."""
    (tmp_path / "lake").mkdir()
    for number in range(16):
        (tmp_path / f"lake/{number}.bin").write_bytes(os.urandom(128 * KIB))
    (tmp_path / "scans.yaml").write_text(SPEC)
    done = run_stagegate("stage", tmp_path / "scans.yaml")
    assert done.returncode == 0, done.stderr
    return run_stagegate


def gpus(tmp_path: Path, *, unsound: bool) -> None:
    """One GPU that nothing is wrong with, and a second one if asked."""
    lines = (RECORDED / "h100.txt").read_text().splitlines()
    kept = [line for line in lines if unsound or not line.startswith("1.")]
    (tmp_path / "nvml.txt").write_text("\n".join(kept))


def diagnosed(tmp_path: Path, *, unsound: bool) -> None:
    written = (RECORDED / "dcgmi4.json").read_text()
    (tmp_path / "dcgmi.json").write_text(written if unsound else written.replace('"Fail"', '"Pass"'))


def answers(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in json.loads(done.stdout)["rows"]}


def measured(tmp_path: Path, digest: str) -> dict[str, Mapping[str, Any]]:
    """What the catalog keeps of each check's figures."""
    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    return {evidence.check: evidence.measured for evidence in read_evidence(workspace.catalog, "scans", digest)}


def test_sound_node_is_accepted_with_its_bytes_by_tier(staged: Run, node: dict[str, str], tmp_path: Path) -> None:
    gpus(tmp_path, unsound=False)
    diagnosed(tmp_path, unsound=False)
    done = staged("check", "scans", "--gate", "pilot", "--json", env=node)
    rows = answers(done)
    assert {name: row["outcome"] for name, row in rows.items()} == dict.fromkeys(rows, "pass")
    assert done.returncode == 0
    figures = measured(tmp_path, json.loads(done.stdout)["digest"])
    assert figures["gpu_inventory"]["driver"] == "550.54.15"
    for name in ("feed_rate", "utilisation"):
        assert figures[name]["tiers"] == {"source": 0, "local": 16 * 128 * KIB, "page_cache": 0}
    assert figures["utilisation"]["steps"] == 32


def test_every_gpu_that_is_unsound_is_told_to_who_mends_it(staged: Run, node: dict[str, str], tmp_path: Path) -> None:
    gpus(tmp_path, unsound=True)
    diagnosed(tmp_path, unsound=True)
    done = staged("check", "scans", "--gate", "pilot", "--json", env=node)
    failed = {name: row["summary"] for name, row in answers(done).items() if row["outcome"] == "fail"}
    assert failed.keys() == {"gpu_inventory", "gpu_memory", "gpu_idle", "dcgm"}
    assert failed["gpu_memory"].startswith("GPU 1 (0001:9a:00.0): 1 uncorrected memory errors")
    assert done.returncode == 1


def test_node_without_gpus_is_inconclusive_unless_none_needed(
    staged: Run, node: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "nvml.txt").write_text("init 12\n")  # the library was not found
    wanted = staged("check", "scans", "--gate", "pilot", "--json", env=node)
    assert wanted.returncode == 3
    assert answers(wanted)["gpu_idle"]["outcome"] == "inconclusive"
    free = staged("check", "scans", "--gate", "anywhere", "--json", env=node)
    assert free.returncode == 0, free.stdout
    assert answers(free)["gpu_idle"]["outcome"] == "not-applicable"
