"""When a run must end: who notices, and who is not believed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from threading import Event

import pytest
from prefect.exceptions import TerminationSignal

from prefect_stagegate.tasks._support import cancelling
from prefect_stagegate.tasks._support.cancelling import TICK, ending, requested
from tests.support.waiting import eventually

SOON = 40 * TICK
CHILD = """
import multiprocessing, sys, time
from pathlib import Path
from prefect_stagegate.tasks._support.cancelling import ending

def run(folder):
    with ending() as event:
        (folder / "begun").touch()
        if event.wait(60):
            (folder / "ended").touch()

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=run, args=(Path(sys.argv[1]),)).start()
    time.sleep(60)
"""


class Run(threading.Thread):
    """A run in a thread, until it learns that it must end."""

    def __init__(self, patience: float = SOON) -> None:
        super().__init__()
        self.stopped = False
        self._patience = patience
        self._begun = Event()
        self.start()
        self._begun.wait()

    def run(self) -> None:
        with ending() as event:
            self._begun.set()
            self.stopped = event.wait(self._patience)


def unwind(run: Run, error: BaseException, *more: BaseException) -> None:
    """Raise an error in this thread, which waits for the run on its way out as Prefect does, or fails there again."""
    try:
        raise error
    finally:
        unwind(run, *more) if more else run.join()


@pytest.mark.parametrize("error", [TerminationSignal(signal.SIGTERM), KeyboardInterrupt()])
def test_a_run_in_a_thread_is_told_when_the_main_thread_unwinds(error: BaseException) -> None:
    run = Run()
    with pytest.raises(type(error)):
        unwind(run, error)
    assert run.stopped


def test_it_is_told_also_when_something_else_fails_meanwhile() -> None:
    run = Run()
    with pytest.raises(OSError, match="gone"):
        unwind(run, TerminationSignal(signal.SIGTERM), OSError("the API is gone"))
    assert run.stopped


def test_an_error_that_the_main_thread_handles_ends_no_run() -> None:
    run = Run(patience=4 * TICK)
    with pytest.raises(OSError, match="handles"):
        unwind(run, OSError("somebody handles it"))
    assert not run.stopped


def test_error_that_leaves_the_block_sets_its_event() -> None:
    with pytest.raises(ValueError, match="broken"), ending() as event:
        raise ValueError("broken")
    assert event.is_set()

    with ending() as calm:
        pass
    assert not calm.is_set()


def test_whoever_started_the_run_may_end_it() -> None:
    event = Event()
    token = requested.set(event)
    try:
        with ending() as given:
            assert given is event
    finally:
        requested.reset(token)


def test_nothing_watches_when_nothing_runs() -> None:
    Run(patience=0).join()
    assert eventually(lambda: all(thread.name != "stagegate-end" for thread in threading.enumerate()), SOON)


def test_process_announces_only_its_own_end() -> None:
    assert not cancelling._announces_end(os.getpid())
    said = cancelling._announce_end()
    assert said
    with said:
        assert cancelling._announces_end(os.getpid())
    assert not cancelling._announces_end(os.getpid())

    with socket.socket(socket.AF_UNIX) as liar:
        liar.bind(cancelling._name(1))
        liar.listen()
        assert not cancelling._announces_end(1)


def test_a_run_in_a_child_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(CHILD)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", tmp_path])
    try:
        assert eventually((tmp_path / "begun").exists)
    finally:
        parent.kill()
        parent.wait()
    assert eventually((tmp_path / "ended").exists)
