"""Runs of `stagegate` in forks of a process that has loaded it: loading takes longer than most commands.

A run has a process, an environment and a folder of its own, and ends as the installed command does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect_stagegate import cli
from prefect_stagegate.environment.python import capture_python
from prefect_stagegate.testing.launching import launched

INSTALLED = Path(sys.executable).with_name("stagegate")
READ_AT_START = ("PYTHON", "LD_", "LANG", "LC_")
"""Variables that an interpreter reads when it starts: a fork would not notice them."""
LOADED = ("checks", "cli", "jobs", "sources.local")
"""Packages that commands load, and pyarrow, numpy and DuckDB with them: for most commands it is most of their work."""
MOST = 1_000_000
"""Bytes of an order, which holds the arguments and the environment."""


@dataclass(frozen=True, slots=True)
class Commands:
    """A process that waits for orders to run commands."""

    address: Path
    environment: Mapping[str, str]
    """The environment that it was started in."""

    def run(
        self, words: Sequence[str], env: Mapping[str, str], cwd: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `stagegate` with these arguments; by the installed command where the interpreter must notice `env`.

        Raises:
            TimeoutExpired: The command took longer than `timeout` seconds, and was killed.
        """
        if self._at_start(env) != self._at_start(self.environment):
            return subprocess.run(
                [INSTALLED, *words],
                env=env,
                cwd=cwd,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        order = json.dumps({"words": words, "env": dict(env), "cwd": str(cwd)}).encode()
        with (
            tempfile.TemporaryFile("w+") as output,
            tempfile.TemporaryFile("w+") as errors,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        ):
            connection.settimeout(timeout)
            connection.connect(str(self.address))
            socket.send_fds(connection, [order], [output.fileno(), errors.fileno()])
            process = int(connection.recv(64))
            try:
                status = int(connection.recv(64))
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired([INSTALLED, *words], timeout) from None
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess([INSTALLED, *words], status, output.read(), errors.read())

    @staticmethod
    def _at_start(env: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in env.items() if name.startswith(READ_AT_START)}


@contextmanager
def commands(folder: Path, **variables: str) -> Iterator[Commands]:
    """Start the process with its socket in `folder` and `variables` in its environment, and end it after the block."""
    address = folder / "orders"
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", f"from tests.support.commands import serve; serve({str(address)!r})"]
    root = str(Path(__file__).parents[2])
    path = {"PYTHONPATH": os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))}
    with launched(command, folder / "log", address.exists, env=environment | path):
        yield Commands(address, environment)


def load_commands() -> None:
    """Load what commands need."""
    for name in LOADED:
        package = importlib.import_module(f"prefect_stagegate.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def serve(address: str) -> None:
    """Load what commands need, then fork for each order that comes. A fork returns from here to Python's own end."""
    load_commands()
    sys.path[0] = str(INSTALLED.parent)
    capture_python()  # kept, so that not each run reads all distributions
    gc.freeze()  # a collection in a fork would copy every page
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{address}.new")
        listener.listen(64)
        os.rename(f"{address}.new", address)  # noqa: PTH104 - whoever sees it can connect
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                break
            connection.close()
            _reap()
    order, descriptors, _, _ = socket.recv_fds(connection, MOST, 2)
    process = os.fork()
    if not process:
        connection.close()
        _become(json.loads(order), *descriptors)
        return
    connection.send(str(process).encode())
    _, status = os.waitpid(process, 0)
    connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _reap() -> None:
    """Wait for the forks that have ended."""
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            return


def _become(order: dict[str, Any], output: int, errors: int) -> None:
    """Run a command as the installed script does.

    Its end does all that Python's does except to free the modules, which would copy the pages that forks share: half of
    the time of most commands.
    """
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    os.chdir(order["cwd"])
    sys.argv = [str(INSTALLED), *order["words"]]
    code = 0
    try:
        cli.main()
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        code = ended.code
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
