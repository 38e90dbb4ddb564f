"""Readers of an arriving version, and processes that fetch it, are killed at random: KILLS=200 for the whole.

Meanwhile the source lies, the volume fills up, or the version is withdrawn. No reader may get a wrong byte or hang, and
what was fetched must be used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.early_readers import EarlyLab, early_lab, run_trials

KILLS = int(os.environ.get("KILLS", "5")) * 4 // 5
"""The others are of `tests/plugins/fleet/test_arriving_agent.py`."""

pytestmark = [pytest.mark.system, pytest.mark.timeout(300 + 60 * KILLS)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EarlyLab]:
    if os.geteuid():
        pytest.fail("only root can mount a volume")
    with early_lab(tmp_path_factory.mktemp("early")) as running:
        yield running


def test_readers_end_whoever_is_killed(lab: EarlyLab, tmp_path: Path) -> None:
    run_trials(lab, tmp_path, KILLS)
