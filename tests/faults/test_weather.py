"""Bad weather between a cache and an S3 server, drawn from seeds: an exact version, or a typed error and nothing seen.

A failing round prints the command that repeats it: `FAULT_SEED=123 .venv/bin/pytest tests/faults/test_weather.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import weather

from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.transfer import retry

SEEDS = [int(seed) for seed in os.environ.get("FAULT_SEED", "").split(",") if seed] or range(12)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_version_that_comes_through_bad_weather_is_exact(seed: int, seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    report = weather.round(seed, seaweedfs, tmp_path)
    assert report.outcome
