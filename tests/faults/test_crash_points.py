"""A job that is killed, or whose disk fails or fills up, at any of its calls leaves the old or the new state.

Here a sample, by the shim. test_traced_crashes.py does it by strace, and test_power_cuts.py cuts the power.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from crash.lab import Lab, spread

COUNT = min(160, int(os.environ.get("CRASH_POINTS", "40")))
"""`make faults` takes the larger sample."""
SEED = int(os.environ.get("SEED", "4"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("crash"), workers=2)
    yield lab
    lab.close()


@pytest.mark.timeout(400)  # less than a minute where nobody else works
def test_crashed_job_leaves_the_old_or_new_state_and_converges(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = list(lab.crash_each(spread(list(lab.points()), COUNT, SEED)))
    reached = {verdict.point for verdict in verdicts if verdict.reached}
    with capsys.disabled():
        print(f"\n{len(reached)} distinct crash points by the shim, seed {SEED}")
    failed = [str(verdict) for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join(failed)
    assert len(reached) >= COUNT * 15 // 16
