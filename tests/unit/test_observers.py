"""Those who look on at jobs change nothing of them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from prefect_stagegate.doors import Job
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs import runner
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.workspace import Workspace

seen: list[str] = []


class Recording:
    """Notes what it sees."""

    def begun(self, job: Job) -> None:
        seen.append(f"{job.name} began")

    def ended(self, job: Job) -> None:
        seen.append(f"{job.name} ended: {job.outcome} {job.facts}")


class Failing:
    """Fails whenever it is told something."""

    def begun(self, job: Job) -> None:
        raise ValueError(job.name)

    def ended(self, job: Job) -> None:
        raise ValueError(job.name)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    seen.clear()
    observers = {f"{__name__}:Failing": True, f"{__name__}:Recording": True, "no.such.module:Observer": False}
    tests = {place: (lambda _, is_on=is_on: is_on) for place, is_on in observers.items()}
    monkeypatch.setattr(runner, "_observers", lambda: tests)
    monkeypatch.setattr(runner, "_failed", set())
    return open_workspace(tmp_path / "cache", tmp_path / "catalog")


def test_failing_observer_is_logged_once_and_ends_no_job(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with runner.step(workspace, "stage", "things") as job:
                job.note(files=1)
    assert seen == ["stage began", "stage ended: ok {'files': 1}"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"The observer {__name__}:Failing failed: ValueError: stage"
    ]


def test_observers_see_how_a_job_ended(workspace: Workspace) -> None:
    with pytest.raises(UsageError), runner.step(workspace, "stage", "things"):
        raise UsageError("no")
    with pytest.raises(KeyboardInterrupt), runner.step(workspace, "check", "things"):
        raise KeyboardInterrupt
    assert seen[1::2] == ["stage ended: error {}", "check ended: stopped {}"]
