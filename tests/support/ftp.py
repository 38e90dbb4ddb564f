"""rclone's FTP server on the loopback interface: one more server that is read through fsspec."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port

USER, PASSWORD = "reader", "reader-password"


@contextmanager
def rclone_ftp(folder: Path, served: Path) -> Iterator[str]:
    """Serve the folder `served` to `USER` for as long as the block runs; gives `127.0.0.1:port`.

    Raises:
        MissingExtra: There is no `rclone`.
        SourceUnavailable: It didn't start.
    """
    command = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if command is None:
        raise MissingExtra("There is no `rclone` command", hint="Run `make setup`.")
    folder.mkdir(parents=True, exist_ok=True)
    port, passive = free_port(), free_port(1)
    flags = [f"--addr=127.0.0.1:{port}", f"--user={USER}", f"--pass={PASSWORD}", "--dir-cache-time=0s"]
    flags.append(f"--passive-port={passive}-{passive + 20}")
    with launched(
        [command, "--config=/dev/null", "serve", "ftp", str(served), *flags],
        folder / "server.log",
        lambda: _greets(port),
    ):
        yield f"127.0.0.1:{port}"


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False
