"""Runs a server for tests and the demo: it must be ready in time, and ends with the block or with this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from prefect_stagegate.errors import SourceUnavailable

GRACE = 2.0
"""Seconds that a server has to end by itself before it is killed."""

# Has the kernel kill the command when the thread that started it ends, for whatever reason. The parent may have died
# before prctl ran, so its pid is compared afterwards.
_TIED_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def tied_to_parent(command: Sequence[str]) -> list[str]:
    """A command line that runs `command` in a process that is killed when the thread that started it ends."""
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command]


@contextmanager
def launched(
    command: Sequence[str],
    log: Path,
    answers: Callable[[], bool],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    grace: float = GRACE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for as long as the block runs. Start it from a thread that outlives it.

    Args:
        command: Its command line.
        log: A file for its output: a pipe that is not read would block some servers.
        answers: Whether it is ready.
        env: Its whole environment; this process's where None.
        timeout: Seconds until it must be ready.
        grace: Seconds that it has to end by itself before it is killed.

    Raises:
        SourceUnavailable: The server ended or was not ready in time; the message has the end of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied_to_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=env,
            start_new_session=True,  # so that Ctrl-C reaches the program and not its server
        )
    deadline = time.monotonic() + timeout
    try:
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                state = "ended at once" if process.poll() is not None else "was not ready in time"
                tail = log.read_text(errors="replace")[-2000:]
                raise SourceUnavailable(f"{command[0]} {state}. The end of {log}:\n{tail}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:  # some servers wait for open connections for ever
            process.kill()
            process.wait()


def answers_http(url: str) -> bool:
    """Whether a web server answers at `url`, with any status."""
    try:
        with urlopen(url, timeout=2):  # noqa: S310 - our own address
            return True
    except HTTPError:
        return True  # a refusal is an answer
    except OSError:
        return False
