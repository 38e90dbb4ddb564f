"""Bad weather between a cache and an S3 server, drawn from seeds: an exact version, or a typed error and nothing seen.

A failing round prints the command that repeats it: `FAULT_SEED=123 .venv/bin/pytest tests/faults/test_weather.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import weather

from prefect_stagegate.testing.servers import SeaweedFS

pytestmark = pytest.mark.usefixtures("impatient")

USUAL = (0, 102, 103, 105, 106, 116, 119, 129, 136, 147)
"""Seeds whose climates hold everything together."""
SEEDS = [int(seed) for seed in os.environ.get("FAULT_SEED", "").split(",") if seed] or USUAL


@pytest.mark.parametrize("seed", SEEDS)
def test_a_version_that_comes_through_bad_weather_is_exact(seed: int, seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    report = weather.round(seed, seaweedfs, tmp_path)
    assert report.outcome


def test_the_usual_seeds_hold_everything_that_may_go_wrong() -> None:
    assert {kind for seed in USUAL for kind in weather.climate(seed)[0]} == {*weather.READS, *weather.RARE}
