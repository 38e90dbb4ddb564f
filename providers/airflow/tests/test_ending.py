"""Commands end with the trigger, the worker or the guard that runs them, and leave no lease."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_stagegate.command import Command, ExitCode, child_environment, follow, guarded
from airflow_provider_stagegate.operators import StagegateStageOperator
from tests.conftest import Delivery, stagegate
from tests.endless import wait_until

ENDED_WITHIN = 2.0
"""Seconds that a command may take to end."""
WORKER = """
import asyncio, os, sys
from airflow_provider_stagegate.command import Command, follow
command = Command(sys.argv[1], environment=os.environ)
asyncio.run(follow(command, sys.argv[2:], print, lambda guard: print(guard, flush=True)))
"""
"""A worker that runs a command, and prints the id of its guard."""
CROWDED = """
import os, resource, sys
from airflow_provider_stagegate.guard import run
os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
sys.exit(run(os.getppid(), [], ["true"]))
"""
"""A guard whose user may start no process."""


def command_of(delivery: Delivery) -> Command:
    extra = delivery.connection["extra"]
    places = {"STAGEGATE_CACHE": extra["cache"], "STAGEGATE_CATALOG": extra["catalog"]}
    return Command(stagegate(), environment=child_environment(os.environ, places))


def processes_with(text: str) -> list[int]:
    """The processes whose command line has the text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text()
        except OSError:
            continue
        if text in words and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="acts as another user, who may have one process")
def test_machine_without_processes_is_tried_again() -> None:
    done = subprocess.run([sys.executable, "-c", CROWDED], capture_output=True, check=False)
    assert (done.returncode, b"can't be run" in done.stderr) == (ExitCode.ERROR, True)


def test_cancelled_trigger_ends_its_command(endless: Delivery) -> None:
    spec = str(endless.spec)

    async def cancel() -> float:
        following = asyncio.create_task(follow(command_of(endless), ["stage", spec, "--json"], print))
        await asyncio.to_thread(wait_until, endless.leases)
        start = time.monotonic()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        return time.monotonic() - start

    assert asyncio.run(cancel()) < ENDED_WITHIN
    assert processes_with(spec) == []
    assert endless.leases() == []


def test_killed_task_ends_the_command_of_its_worker(endless: Delivery) -> None:
    operator = StagegateStageOperator(task_id="stage", source=str(endless.spec), deferrable=False)
    stopped: list[float] = []

    def kill() -> None:
        wait_until(endless.leases)
        operator.on_kill()
        stopped.append(time.monotonic())

    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill)
        with pytest.raises(AirflowException, match=r"stage .* ended with 143"):
            operator.execute({})
        killing.result()
    assert time.monotonic() - stopped[0] < ENDED_WITHIN
    assert endless.leases() == []


@pytest.mark.parametrize("killed", ["worker", "guard"])
def test_killed_parent_ends_the_command(endless: Delivery, killed: str) -> None:
    spec, command = str(endless.spec), command_of(endless)
    words = [sys.executable, "-c", WORKER, command.executable, "stage", spec, "--json"]
    worker = subprocess.Popen(words, env=command.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        guard = int(worker.stdout.readline())
        wait_until(endless.leases)
        os.kill(worker.pid if killed == "worker" else guard, signal.SIGKILL)
        wait_until(lambda: set(processes_with(spec)) <= {worker.pid}, ENDED_WITHIN + 1)
    finally:
        worker.kill()
        worker.communicate()
    assert endless.leases() == []


def test_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "stubborn"
    script.write_text("#!/bin/sh\ntrap '' TERM\necho started >&2\nwhile :; do sleep 0.2; done\n")
    script.chmod(0o755)
    started = asyncio.Event()

    async def cancel() -> None:
        following = asyncio.create_task(follow(Command(str(script)), [], lambda _: started.set()))
        await asyncio.wait_for(started.wait(), 10)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    asyncio.run(cancel())
    assert processes_with(str(script)) == []


def test_wrapper_s_command_is_ended_too(endless: Delivery, tmp_path: Path) -> None:
    command, wrapper = command_of(endless), tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n{command.executable} "$@"\nexit $?\n')
    wrapper.chmod(0o755)

    async def cancel() -> None:
        words = ["stage", str(endless.spec), "--json"]
        following = asyncio.create_task(follow(replace(command, executable=str(wrapper)), words, print))
        await asyncio.to_thread(wait_until, endless.leases)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    asyncio.run(cancel())
    assert processes_with(str(endless.spec)) == []
    assert endless.leases() == []


def test_what_a_command_leaves_behind_holds_up_nobody(tmp_path: Path) -> None:
    script = tmp_path / "untidy"
    script.write_text("#!/bin/sh\nsleep 60 &\necho '{}'\n")
    script.chmod(0o755)
    start = time.monotonic()
    assert asyncio.run(follow(Command(str(script)), [], print)).document == {}
    assert time.monotonic() - start < 10


def test_container_is_ended_beside_its_client(tmp_path: Path) -> None:
    stop = tmp_path / "stopped"
    with subprocess.Popen(guarded(["sleep", "60"], ["touch", str(stop)])) as guard:
        wait_until(lambda: Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text())
        guard.terminate()
        assert guard.wait(5) == 128 + signal.SIGTERM
    assert stop.exists()


@pytest.mark.parametrize("words", [["no-such-command"], ["/etc/passwd"]])
def test_command_that_can_t_run_is_named(words: list[str]) -> None:
    lines: list[str] = []
    result = asyncio.run(follow(Command(words[0]), [], lines.append))
    assert result.code in (ExitCode.NOT_FOUND, ExitCode.NOT_EXECUTABLE)
    assert words[0] in lines[0]
