"""A version that says it is there is whole after a power cut, and the rerun converges. On an ext4 volume in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash import power
from crash.lab import Lab, spread

COUNT = int(os.environ.get("POWER_CUTS", "60"))
SEED = int(os.environ.get("SEED", "4"))

pytestmark = [pytest.mark.system, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid():
        pytest.fail("only root can mount a file as a volume")
    lab = Lab(tmp_path_factory.mktemp("power"))
    yield lab
    lab.close()


def test_what_is_there_after_a_power_cut_is_whole(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = power.cuts(lab)
    ends = [cut for cut in every if cut.point.kind == power.END]
    verdicts = [power.cut_power(lab, cut, tmp_path) for cut in {*ends, *spread(every, COUNT, SEED)}]
    reached = {verdict.again for verdict in verdicts if verdict.reached}
    with capsys.disabled():
        print(f"\n{len(reached)} power cuts, seed {SEED}")
    failed = [str(verdict) for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join(failed)
    assert len(reached) >= 0.9 * COUNT
