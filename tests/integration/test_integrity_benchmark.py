"""The harness of `make bench-integrity` tells what was noticed from what was let through."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system  # it starts a tool for each of 72 cases

ROOT = Path(__file__).parents[2]
KINDS = 8
SHAPES = 3


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[dict[str, str]]]]:
    """One case of each kind and shape, for three tools."""
    folder = tmp_path_factory.mktemp("integrity")
    only = [flag for tool in ("blind", "rclone", "stagegate, known") for flag in ("--only", tool)]
    counts = ["--cases", str(KINDS * SHAPES), "--no-speed", "--dry-run", "--json", str(folder / "cases.json")]
    command = [sys.executable, "-m", "benchmarks.integrity", *only, *counts, "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cases: dict[str, Any] = json.loads((folder / "cases.json").read_text())
    return cases


def test_who_checks_nothing_lets_all_through(measured: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    cases = measured["on the way"]["blind"]
    assert [case for case in cases if case["alone"] != "let through"] == []
    assert len({(case["kind"], case["shape"]) for case in cases}) == KINDS * SHAPES


def test_a_known_version_lets_nothing_through(measured: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    cases = measured["on the way"]["stagegate, known version"]
    assert [case for case in cases if case["alone"] != "right"] == []
    assert len(cases) == KINDS * SHAPES


def test_rclone_notices_what_has_an_md5(measured: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    cases = measured["on the way"]["rclone"]
    assert {case["alone"] for case in cases if case["shape"] == "one part"} == {"right"}
    assert "let through" not in {case["verified"] for case in cases}


def test_only_a_look_finds_damage_on_the_disk(measured: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    cases = measured["on disk"]["rclone"]
    assert cases
    assert {(case["alone"], case["verified"]) for case in cases} == {("let through", "refused")}
