"""A volume that fills up ends a job with one clear error; with room again it converges."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from crash.full import fill, mounted
from crash.lab import Lab

from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.errors import NoSpace
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Version
from prefect_stagegate.workspace import Workspace

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid():
        pytest.fail("only root can mount a volume")
    lab = Lab(tmp_path_factory.mktemp("full"))
    yield lab
    lab.close()


@pytest.mark.parametrize("job", ["stage", "restage", "bring", "check", "promote", "repair"])
def test_job_on_a_full_volume_leaves_the_old_state(lab: Lab, job: str, tmp_path: Path) -> None:
    verdicts = [fill(lab, job, pages, tmp_path) for pages in (*range(1, 24, 2), *range(24, 160, 17))]
    failed = [str(verdict) for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join(failed)


def fill_up(workspace: Workspace, nas: Path) -> list[Version]:
    """Stage datasets of 100, then of 10, then of one file until not even that finds room."""
    staged: list[Version] = []
    for files in (100, 10, 1):
        for number in count():
            folder = nas / f"{files}-{number}"
            folder.mkdir(parents=True)
            for name in range(files):
                (folder / f"{name}.bin").write_bytes(b"%d %d %d" % (files, number, name) * 900)
            try:
                staged.append(
                    stage(workspace, {"stagegate": 1, "dataset": folder.name, "sources": [{"url": str(folder)}]})
                )
            except NoSpace:
                break
    return staged


def test_full_volume_still_takes_leases_pins_and_repairs(tmp_path: Path) -> None:
    """The floor is zero, so objects may take all but what is kept for the cache's own records."""
    volume = tmp_path / "volume"
    volume.mkdir()
    with mounted(volume, 20 << 20):
        workspace = open_workspace(volume / "cache", tmp_path / "catalog")
        workspace = replace(workspace, settings=replace(workspace.settings, free_floor=0.0))
        first, *_, last = fill_up(workspace, tmp_path / "nas")

        workspace.cache.leases.pin(last.dataset, last.digest)
        with ExitStack() as readers:
            for _ in range(20):
                readers.enter_context(workspace.cache.leases.hold(LeaseKind.READER, first.dataset, first.digest))
            rotten = first.path / "7.bin"
            rotten.chmod(0o600)
            rotten.write_bytes(b"rotten")
            rotten.chmod(0o400)
            verification = verify(workspace, repair=True)
            assert (len(verification.damaged), verification.repaired) == (1, 1)
        assert collect(workspace.cache.layout).blobs == 1  # the rotten one
