"""Run a command and measure it, with all processes that it starts.

    python -I -S benchmarks/launcher.py FOLDER CORES COMMAND …

A process inherits its parent's peak memory, so this very small one starts the command. It writes the figures into the
last line of its standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SAMPLE_SECONDS = 0.1
"""Time between two looks at the memory. One takes about a millisecond."""
PR_SET_CHILD_SUBREAPER = 36


class Usage(NamedTuple):
    """What a command took, with its child processes: seconds and MiB."""

    wall: float
    on_disk: float
    """Until its folder's volume is synced, too."""
    cpu: float
    memory: float
    """The highest sum of the processes' memory (PSS) that was seen, or the peak of the largest, if that is more."""


def launch(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: object,
    cores: Sequence[int] = (),
    stdout: int = subprocess.PIPE,
) -> tuple[Usage, str]:
    """Run a command, on these cores only; returns what it took, and what it printed.

    Args:
        command: Its first word is a path.
        environment: Its variables, and no others.
        folder: On the volume that is synced after it.
        cores: All, when there are none.
        stdout: As for `subprocess.run`.

    Raises:
        SystemExit: It failed.
    """
    launched = [sys.executable, "-I", "-S", __file__, str(folder), json.dumps(list(cores)), *command]
    done = subprocess.run(launched, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, check=True)
    *errors, figures = done.stderr.splitlines()
    status, *usage = json.loads(figures)
    if status:
        sys.exit("\n".join([f"{' '.join(command)} failed: {status}", done.stdout or "", *errors]))
    return Usage(*usage), done.stdout or ""


def main(folder: str, cores: str, *command: str) -> None:
    libc, own_cores = ctypes.CDLL(None), os.sched_getaffinity(0)
    # Processes whose parent ended become children of this one, which can count and await them.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.sched_setaffinity(0, json.loads(cores) or own_cores)  # which the command inherits
    begun = time.monotonic()
    process = os.posix_spawn(command[0], command, os.environ)
    os.sched_setaffinity(0, own_cores)
    status = peak = 0
    end = select.poll()
    end.register(os.pidfd_open(process), select.POLLIN)
    while not end.poll(SAMPLE_SECONDS * 1000):
        peak = max(peak, sum(map(memory, descendants(os.getpid()))))
    with suppress(ChildProcessError):
        while True:
            ended, code = os.wait()
            status |= code if ended == process else 0
    wall = time.monotonic() - begun
    volume = os.open(folder, os.O_RDONLY)
    begun = time.monotonic()
    if libc.syncfs(volume):
        sys.exit(f"the volume of {folder} can't be synced")
    synced = time.monotonic() - begun
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    mebibytes = max(peak, usage.ru_maxrss) / 1024
    print(json.dumps([status, wall, wall + synced, usage.ru_utime + usage.ru_stime, mebibytes]), file=sys.stderr)


def descendants(process: int) -> Iterator[int]:
    """The processes that a process started, and those that these started."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it may have ended meanwhile
            for child in map(int, children.read_text().split()):
                yield child
                yield from descendants(child)


def memory(process: int) -> int:
    """Kilobytes of a process, where each shared page counts in part; 0 when it has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
