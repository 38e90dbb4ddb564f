"""Runs a command that never outlives the process that asked for it.

    python guard.py PARENT STOP COMMAND...

`PARENT` is that process' id. When it has ended, in whatever way, or this process gets SIGTERM, the command is ended:
SIGTERM, and SIGKILL two seconds later. What the command started ends with it. `STOP` is a JSON list: a further command
to run then, which ends the container that the command has started; empty without one. A guard that is killed takes its
command along.

This is a script with Python's own modules alone, and starts in 30 ms.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
INTERVAL = 0.5
"""Seconds between two looks at the parent."""
POLL = 0.02
"""Seconds between two looks whether a process is left."""
STOP_TIMEOUT = 30.0
"""Seconds that ending the container may take."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a command that can't be run, as shells give them."""
FAILED = 3
"""The exit code when the machine has no process or memory left, which may pass: as the command's own errors have."""
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(parent: int, stop: list[str], command: list[str]) -> int:
    """Run the command; returns its exit code, that of a signal as 128 and its number."""
    # Blocked signals wait for `sigtimedwait`, so none is missed between two looks.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        # `preexec_fn` is safe here: this process has one thread.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_prepare)  # noqa: PLW1509
    except OSError as error:
        sys.stderr.write(f"{command[0]} can't be run: {error.strerror}\n")
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            return FAILED
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    while os.getppid() == parent:
        received = signal.sigtimedwait(_SIGNALS, INTERVAL)
        code = child.poll()
        if code is not None:
            # What it left behind may hold its output open, which Airflow reads to the end.
            _end(child)
            return code if code >= 0 else 128 - code
        if received and received.si_signo != signal.SIGCHLD:
            break
    _end(child)
    if stop:
        # A container may live on without the client that started it.
        subprocess.run(
            stop,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=STOP_TIMEOUT,
            check=False,
        )
    return 128 + signal.SIGTERM


def _prepare() -> None:
    """In the child, before the command: end with the guard, and take signals again."""
    # The signal comes when the thread ends that started the child. The guard has one, which ends with it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End all processes of the command's group: a host that is a script may have started the command without `exec`."""
    until = time.monotonic() + GRACE
    with suppress(ProcessLookupError):  # none is left
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < until:
            time.sleep(POLL)
            child.poll()
            os.killpg(child.pid, 0)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]))
