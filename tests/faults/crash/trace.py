"""The same by strace: what the kernel sees, whoever called it, and with no library in between. Needs strace and ptrace.

strace comes to a forked child before its job begins. It counts each thread's calls by themselves, so the n-th call is
the one of the thread that is the first to make so many.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from crash.jobs import JOBS, Sandbox
from crash.lab import WORKER, Lab, Point, Verdict, Warm

CHANGES = (
    *("openat", "creat", "write", "pwrite64", "pwritev", "fallocate", "ftruncate", "fsync", "fdatasync", "syncfs"),
    *(
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "unlink",
        "unlinkat",
        "rmdir",
        "mkdir",
        "mkdirat",
    ),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "flock", "utimensat", "copy_file_range"),
)
"""Calls before which a job is killed, and which fail."""
LOOKS = ("read", "pread64", "preadv", "getdents64")
"""Calls that change nothing: they only fail."""
SHARE = "share"
"""The job whose worker process is crashed, too. Its parent is killed only: the rest is as in `stage`."""
TAKES_ROOM = ("openat", "write", "pwrite64", "fallocate", "rename", "link", "linkat", "mkdir")
INJECTIONS = {"kill": "signal=KILL:when={}", "eio": "error=EIO:when={}", "enospc": "error=ENOSPC:when={}"}
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")


def points(lab: Lab, jobs: Iterable[str] = JOBS) -> Iterator[Point]:
    """Every point of some jobs: the calls that touch the job's own folder, by a run that nobody disturbs."""
    for job in jobs:
        lab.calm(job)  # makes the world
        with lab.warm() as warm:
            for worker in ("", WORKER) if job == SHARE else ("",):
                sandbox = lab.copy(job)
                outcome, lines = _traced(warm, job, sandbox, worker, f"trace={','.join(CHANGES + LOOKS)}")
                if "about" not in outcome:
                    raise AssertionError(f"{job} fails under strace: {outcome}")
                for call, numbers in _numbers(lines, sandbox).items():
                    for number in numbers:
                        faults = _faults(call) if worker or job != SHARE else ("kill",) * (call in CHANGES)
                        yield from (Point(job, worker + call, number, fault) for fault in faults)


def crash_each(lab: Lab, chosen: Iterable[Point]) -> Iterator[Verdict]:
    """Crash at each point, with all workers."""
    with ThreadPoolExecutor(lab.workers) as pool:
        yield from pool.map(lambda point: crash(lab, point), chosen)


def crash(lab: Lab, point: Point) -> Verdict:
    """Crash a job at one point, and look at what is left, then and after it ran again."""
    lab.calm(point.job)
    sandbox = lab.copy(point.job)
    injection = INJECTIONS[point.fault].format(point.number)
    worker, call = WORKER * point.in_worker, point.kind.removeprefix(WORKER)
    with lab.warm() as warm:
        outcome, lines = _traced(warm, point.job, sandbox, worker, f"trace={call}", f"inject={call}:{injection}")
        killed = point.fault == "kill" and (outcome["status"] == -9 or "SIGKILL" in "".join(lines[-1:]))
        injected = [line for line in lines if "INJECTED" in line]
        # Which call is the n-th may differ from run to run, as where a folder's order decides. Another thread's n-th
        # may be one of a counter in memory, which no disk spoils.
        hits = (line for line in injected if str(sandbox.folder) in line)
        in_memory = any("anon_inode:" in line for line in injected)
        spoilt = "" if in_memory else next(hits, "killed" if killed else "")
        return lab.judge(warm, Verdict(point, bool(spoilt), spoilt, again=f"strace:{point}"), sandbox, outcome)


def _faults(call: str) -> Iterator[str]:
    if call in CHANGES:
        yield "kill"
    yield "eio"
    if call in TAKES_ROOM:
        yield "enospc"


def _numbers(lines: list[str], sandbox: Sandbox) -> dict[str, list[int]]:
    """The numbers of the calls that touch the sandbox's folder, by call, where a thread is the first to come so far."""
    mine: Counter[tuple[str, str]] = Counter()
    first: dict[str, dict[int, bool]] = {}
    for thread, call, rest in (match.groups() for match in map(_LINE.match, lines) if match):
        mine[thread, call] += 1
        first.setdefault(call, {}).setdefault(mine[thread, call], str(sandbox.folder) in rest)
    return {call: sorted(number for number, ours in numbers.items() if ours) for call, numbers in first.items()}


def _traced(warm: Warm, job: str, sandbox: Sandbox, worker: str, *expressions: str) -> tuple[dict[str, Any], list[str]]:
    """Run a job under strace, or its first worker process; what its child told, and what strace wrote."""
    meeting = sandbox.folder.with_name(sandbox.folder.name + "-meeting")
    meeting.mkdir()
    options = [option for expression in expressions for option in ("-e", expression)]
    command = ["strace", "-f", "-y", "-s", "0", "-o", str(meeting / "trace"), *options]
    if worker:
        outcome = warm.run(job, sandbox, interpreter=_interpreter(meeting, command))
        _wait_for_end(meeting / "trace")
    else:
        os.mkfifo(meeting / "go")
        watcher = threading.Thread(target=_trace, args=(meeting, command))
        watcher.start()
        outcome = warm.run(job, sandbox, wait=str(meeting))
        watcher.join()
    lines = (meeting / "trace").read_text(errors="replace").splitlines()
    subprocess.run(["rm", "-r", meeting], check=True)
    return outcome, lines


def _interpreter(meeting: Path, command: list[str]) -> str:
    """A Python that is traced where it runs for the first time."""
    path, first = meeting / "python-traced", shlex.quote(str(meeting / "first"))
    traced = shlex.join([*command, "-D", sys.executable])
    lines = ["#!/bin/sh", f'mkdir {first} 2>/dev/null && exec {traced} "$@"', f'exec {sys.executable} "$@"']
    path.write_text("\n".join(lines))
    path.chmod(0o700)
    return str(path)


def _wait_for_end(trace: Path) -> None:
    """The tracer of a worker writes its last line when that has ended."""
    until = time.monotonic() + 5
    while "+++" not in trace.read_text(errors="replace")[-200:] and time.monotonic() < until:
        time.sleep(0.01)


def _trace(meeting: Path, command: list[str]) -> None:
    while not (meeting / "pid").exists():
        time.sleep(0.005)
    process = (meeting / "pid").read_text()
    # Not the processes that it starts.
    with subprocess.Popen([*command, "-b", "execve", "-p", process], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr
        for line in strace.stderr:
            if "attached" in line:
                break
        go = os.open(meeting / "go", os.O_RDWR)
        os.write(go, b"\n")
        strace.stderr.read()
        os.close(go)
