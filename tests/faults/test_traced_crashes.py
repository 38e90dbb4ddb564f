"""As test_crash_points.py, by strace: every call that the kernel sees, whoever makes it. `make faults` takes more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from crash import trace
from crash.lab import Lab, spread

COUNT = int(os.environ.get("CRASH_POINTS", "400"))
SEED = int(os.environ.get("SEED", "4"))

pytestmark = [pytest.mark.system, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not shutil.which("strace"):
        pytest.fail("strace is missing: apt-get install strace")
    lab = Lab(tmp_path_factory.mktemp("traced"), workers=2)
    yield lab
    lab.close()


def test_job_crashed_at_any_system_call_converges(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = spread(list(trace.points(lab)), COUNT, SEED)
    verdicts = list(trace.crash_each(lab, chosen))
    reached = {verdict.point for verdict in verdicts if verdict.reached}
    with capsys.disabled():
        print(f"\n{len(reached)} distinct crash points by strace, seed {SEED}")
    failed = [str(verdict) for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join(failed)
    assert len(reached) >= 0.9 * len(chosen)
