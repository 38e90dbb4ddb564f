"""A volume that fills up ends a job with one clear error; with room again it converges."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.full import fill
from crash.lab import Lab

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid():
        pytest.fail("only root can mount a volume")
    lab = Lab(tmp_path_factory.mktemp("full"))
    yield lab
    lab.close()


@pytest.mark.parametrize("job", ["stage", "restage", "bring", "check", "promote", "repair"])
def test_a_job_on_a_volume_with_too_little_room_leaves_the_old_state(lab: Lab, job: str, tmp_path: Path) -> None:
    verdicts = [fill(lab, job, pages, tmp_path) for pages in (*range(1, 24, 2), *range(24, 160, 17))]
    failed = [str(verdict) for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join(failed)
