"""A process with everything loaded, from which workers are forked: a new one then costs milliseconds.

    {"role": "stager", "seed": "7:12", "crash": ["rename", 40, "kill"]}      an order, one JSON line on its input
    {"born": 4711, "role": "stager"}, {"ended": 4711, "status": -9}          and what it says
    {"by": 4711, "did": "stage", …}                                          and what its workers say

Workers die with the nursery, and the nursery ends with its input. It runs under the shim of the crash lab, so that a
worker can be made to crash, or one of its calls to fail, at the n-th call of a kind.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from crash.warm import FAULTS as SHIM_FAULTS
from crash.warm import LOADED_LATE

from prefect_stagegate.transport.transfer import processes, transfer_engine
from soak.site import Site
from soak.work import work

FAULTS = {
    "kill": ("kill", 0),
    "tear": ("tear", 0),
    "eio": ("fail", errno.EIO),
    "enospc": ("full", errno.ENOSPC),
}
"""What can happen to a call: how the shim does it, and the error."""
LINE = 4000
"""Bytes of a message at most: a pipe takes them whole, whoever else writes."""
DIE_WITH_PARENT = 1
"""Linux's PR_SET_PDEATHSIG."""


def main(site_file: str) -> None:
    """Fork workers as ordered, and say who ended, until the input ends."""
    for name in LOADED_LATE:
        importlib.import_module(name)
    # As few as are fetched here already have worker processes, and one that was stopped is soon missed.
    transfer_engine.SHARED_OBJECTS, processes.SILENT_SECONDS = 16, 8.0
    site = Site.load(Path(site_file))
    waiting = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *orders, waiting = (waiting + data).split(b"\n")
            for order in orders:
                _fork(site, json.loads(order))
        _reap()


def _tell(by: int, report: dict[str, Any]) -> None:
    text = json.dumps({"by": by} | report)
    if len(text) > LINE:
        text = json.dumps({"by": by} | {name: _short(value) for name, value in report.items()})
    os.write(1, text.encode() + b"\n")


def _short(value: Any) -> Any:
    return value.encode("ascii", "replace").decode()[-800:] if isinstance(value, str) else value


def _reap() -> None:
    with suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            _tell(0, {"ended": child, "status": os.waitstatus_to_exitcode(status)})


def _fork(site: Site, order: dict[str, Any]) -> None:
    parent = os.getpid()
    child = os.fork()
    if child:
        _tell(0, {"born": child, "role": order["role"], "doomed": bool(order.get("crash"))})
        return
    status = 1
    try:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() == parent:
            _live(site, order)
        status = 0
    except BaseException:  # noqa: BLE001 - a defect, told to whoever counts them
        with suppress(OSError):
            _tell(os.getpid(), {"wrong": "no error of the package's own left it: " + traceback.format_exc()[-1500:]})
    finally:
        os._exit(status)


def _live(site: Site, order: dict[str, Any]) -> None:
    if crash := order.get("crash"):
        _arm(site, *crash)
    work(site, order["role"], order["seed"], partial(_tell, os.getpid()), doomed=bool(crash))


def _arm(site: Site, kind: str, number: int, fault: str) -> None:
    shim = ctypes.CDLL(None)
    shim.crash_kind.restype = ctypes.c_char_p
    kinds = [shim.crash_kind(position).decode() for position in range(shim.crash_kinds())]
    report = os.open(Path(site.root, "spoilt.jsonl"), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    how, error = FAULTS[fault]
    roots = (f"{site.root}/nodes".encode(), str(site.catalog).encode())
    shim.crash_arm(
        *roots, kinds.index(kind), ctypes.c_long(number), SHIM_FAULTS.index(how), error, report, False
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
