"""A process with everything loaded, which is forked for each run: a run then costs milliseconds, not an interpreter.

Started under the shim. Reads one JSON order a line, answers with one JSON line:

    {"job": "restage", "folder": …, "nas": …, "kind": "rename", "number": 3, "fault": "kill", "error": 5}
    {"status": 9, "spoilt": "rename 3 /…", …}        what the child told before it ended, and how it ended
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from crash.jobs import JOBS, Sandbox, settle
from prefect_stagegate.cache import memory, unsynced
from prefect_stagegate.environment.python import capture_python
from prefect_stagegate.errors import StagegateError

FAULTS = ("count", "kill", "tear", "fail", "full", "cut", "commit-and-cut")
"""In the order of the shim's own list: only count; SIGKILL before the call; after half of a write; the call fails; it
and all later ones that take room fail; a power cut; one just after the file system committed its journal."""
LOADED_LATE = (
    *("pyarrow.parquet", "prefect_stagegate.cache.blobs", "prefect_stagegate.cache.memory", "email.message", "getpass"),
    *("encodings.idna", "shutil", "fractions", "decimal", "uuid", "sqlite3", "platform", "importlib.metadata"),
)
SANDBOX = "CRASH_SANDBOX"
"""The variable by which processes that a child started are known."""
TIMEOUT = 30
"""Seconds that a child may take."""


def main() -> None:
    """Serve orders until the input ends."""
    for name in LOADED_LATE:
        importlib.import_module(name)
    capture_python()  # kept, so that not each run reads all distributions
    shim = ctypes.CDLL(None)
    shim.crash_kind.restype = ctypes.c_char_p
    shim.crash_count.restype = ctypes.c_long
    kinds = [shim.crash_kind(number).decode() for number in range(shim.crash_kinds())]
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line), shim, kinds)), flush=True)


def _fork(order: dict[str, Any], shim: ctypes.CDLL, kinds: list[str]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(order, shim, kinds, writing)
    os.close(writing)
    outcome: dict[str, Any] = {}
    with os.fdopen(reading) as lines:
        for line in lines:
            outcome |= json.loads(line)
    _, status = os.waitpid(child, 0)
    return outcome | {"status": os.waitstatus_to_exitcode(status)}


def _child(order: dict[str, Any], shim: ctypes.CDLL, kinds: list[str], report: int) -> None:
    os.dup2(2, 1)
    ctypes.CDLL(None).alarm(TIMEOUT)
    sandbox = Sandbox(Path(order["folder"]), Path(order["nas"]))
    try:
        os.environ.update({SANDBOX: order["folder"], **order.get("settings", {})})
        sys.executable = order.get("interpreter", sys.executable)
        if "boot" in order:
            for module in (memory, unsynced):
                setattr(module, "boot_id", lambda: str(order["boot"]))  # noqa: B010 - no name that it exports
        if "wait" in order:
            _meet(Path(order["wait"]))
        elif "interpreter" not in order:
            _arm(order, shim, kinds, sandbox, report)
        outcome = _outcome(order, sandbox)
        shim.crash_disarm()
        outcome["counts"] = {kind: shim.crash_count(number) for number, kind in enumerate(kinds)}
        _tell(report, json.dumps(outcome).encode() + b"\n")
    finally:
        os._exit(0)


def _tell(report: int, line: bytes) -> None:
    """Write a line, also where the fault that was ordered meets this thread's writes now."""
    with suppress(OSError):
        os.write(report, line)
        return
    os.write(report, line)


def _meet(folder: Path) -> None:
    """Wait until whoever traces this process has come; by calls that are not spoilt."""
    go = os.open(folder / "go", os.O_RDWR)
    (folder / "pid.new").write_text(str(os.getpid()))
    (folder / "pid.new").rename(folder / "pid")
    select.select([go], [], [])


def _arm(order: dict[str, Any], shim: ctypes.CDLL, kinds: list[str], sandbox: Sandbox, report: int) -> None:
    kind = kinds.index(order["kind"]) if order.get("kind") else -1
    cache, catalog = (str(root).encode() for root in sandbox.roots)
    how = FAULTS.index(order.get("fault", "count"))
    shim.crash_arm(
        cache, catalog, kind, ctypes.c_long(order.get("number", 0)), how, order.get("error", 0), report,
        order.get("skip_sync", True),
    )  # fmt: skip


def _outcome(order: dict[str, Any], sandbox: Sandbox) -> dict[str, Any]:
    """Do what was ordered, and tell how it ended."""
    try:
        if order["job"] == "settle":
            return settle(sandbox)
        if order["job"].startswith("world "):
            JOBS[order["job"].removeprefix("world ")].world(sandbox)
            return {}
        return {"about": JOBS[order["job"]].run(sandbox)}
    except StagegateError as error:
        return {"error": type(error).__name__, "exit": int(error.exit_code), "message": str(error)}
    except BaseException:  # noqa: BLE001 - a defect; the lab prints it
        return {"defect": traceback.format_exc()}


if __name__ == "__main__":
    main()
