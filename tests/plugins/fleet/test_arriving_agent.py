"""The agent fetches a version that is read while it arrives, and is killed at random: KILLS=200 for all kills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.early_readers import early_lab, run_trials

KILLS = int(os.environ.get("KILLS", "5")) // 5
"""The others are of `tests/faults/test_arriving_killed.py`."""

pytestmark = [pytest.mark.system, pytest.mark.timeout(300 + 60 * KILLS)]


def test_readers_end_though_the_agent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    with early_lab(tmp_path) as lab:
        run_trials(lab, tmp_path / "trials", KILLS, ["agent", "things@production"])
