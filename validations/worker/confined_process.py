"""How a process begins that reads files of strangers for this one: confined, bounded, and ended with its parent.

    → {"scratch": "/…", "views": ["/…"], "memory": 1073741824, "spill": 1e9, …}     the first line of its input

It gets `confinement.environment`, writes to the scratch folder alone, and ends with the thread that started it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from typing import IO, Any, TextIO

from prefect_stagegate.validations.worker.confinement import confine
from prefect_stagegate.validations.worker.process_limits import apply

BESIDE = 2 << 30
"""Bytes that the process may take beside those of DuckDB: Arrow's batches, libraries, what is on its way."""
LAST_OUTPUT = 2000
"""Bytes of its standard error that are logged."""
_PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


def begin() -> tuple[dict[str, Any], TextIO]:
    """Confine this process. Returns its job, and where its answers go."""
    end_with_parent()
    job = json.loads(sys.stdin.buffer.readline())
    answers = reserve_standard_output()
    confine(job["scratch"], job["views"])
    apply(job["memory"] + BESIDE, job["spill"])
    return job, answers


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def reserve_standard_output() -> TextIO:
    """Reserve standard output for answers: prints of libraries go to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def log_last_output(stderr: IO[bytes], what: str) -> None:
    """Log the end of what a process wrote to its standard error, for whoever debugs it."""
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - LAST_OUTPUT))
    log.debug("The last output of the process that %s:\n%s", what, stderr.read().decode(errors="replace"))
