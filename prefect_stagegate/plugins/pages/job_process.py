"""A command in a process of its own, which ends when the server of pages that began it ends.

python -m prefect_stagegate.plugins.pages.job_process PID WORDS…     PID is the server's
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from prefect_stagegate.cli.app import main
from prefect_stagegate.cli.interrupts import TERMINATED

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        # To SIGTERM a command unwinds, and releases its leases.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):  # the server ended before that
        sys.exit(TERMINATED)
    main(sys.argv[2:])
