"""Nodes of a fleet on one machine: each a process with a cache and a name of its own, and one catalog."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.workspace import Workspace


class FleetNode:
    """One node: its folder has the cache, and the log of the processes that were started as this node."""

    def __init__(self, folder: Path, name: str, catalog: Path) -> None:
        self.name, self.folder, self.catalog = name, folder / name, catalog
        self.folder.mkdir()
        self.cache = self.folder / "cache"

    def workspace(self) -> Workspace:
        """The node's cache and the shared catalog, opened by this process under its own name."""
        return open_workspace(self.cache, self.catalog)

    def ref(self, dataset: str, ref: str) -> str | None:
        """What the node's copy of a ref names."""
        return self.workspace().cache.refs.get(dataset, ref)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @contextmanager
    def running(self, *command: str, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command of the tests' environment as this node, and kill it with its children at the end."""
        own = {
            "STAGEGATE_NODE": self.name,
            "STAGEGATE_CACHE": str(self.cache),
            "STAGEGATE_CATALOG": str(self.catalog),
            "PREFECT_HOME": str(self.folder / "prefect"),
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [Path(sys.executable).with_name(command[0]), *command[1:]],
                env={**os.environ, **own, **env},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            self.kill(process)

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        """Kill a process with its children, as a power cut would."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
