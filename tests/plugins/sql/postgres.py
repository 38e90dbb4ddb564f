"""PostgreSQL on the loopback interface, from Debian's `postgresql`: an empty database that asks for a password."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port

DEBIAN = "/usr/lib/postgresql/*/bin"
"""Where Debian keeps the server's commands, by version, out of the PATH."""
OWNER, PASSWORD = "owner", "owner-secret"
_NOBODY = "nobody"
"""Whom the server runs as where the tests are root's, whom it refuses."""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "40",
    "dynamic_shared_memory_type": "mmap",
}


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    port: int
    pid: int
    psql: str

    @property
    def url(self) -> str:
        """The database's, without the password."""
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/postgres"

    def run(self, *statements: str) -> str:
        """Run statements one by one as the owner, and return what the last one gives, a line a row, unaligned.

        Raises:
            CalledProcessError: One was refused.
        """
        commands = [word for statement in statements for word in ("-c", statement)]
        command = [self.psql, "-h", "127.0.0.1", "-p", str(self.port), "-U", OWNER, "-XAtq", "-v", "ON_ERROR_STOP=1"]
        env = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run([*command, *commands, "postgres"], env=env, check=True, capture_output=True, text=True)
        return done.stdout.strip()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server for as long as the block runs; its data go with it.

    Raises:
        MissingExtra: PostgreSQL isn't installed.
        SourceUnavailable: It did not answer in time.
    """
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # below a folder of pytest's, nobody could not reach it
    try:
        user, data = _user(folder), folder / "data"
        password = folder / "password"
        password.write_text(PASSWORD)
        words = ["-D", str(data), "-U", OWNER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--auth=scram-sha-256"]
        command = [*user, _binary("initdb"), *words, f"--pwfile={password}"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        port, psql, ready = free_port(), _binary("psql"), _binary("pg_isready")
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [*user, _binary("postgres"), "-D", str(data), "-p", str(port), *settings]
        probe = [ready, "-q", "-h", "127.0.0.1", "-p", str(port)]
        with launched(command, folder / "log", lambda: subprocess.run(probe, check=False).returncode == 0) as process:
            yield Postgres(port, process.pid, psql)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user(folder: Path) -> Sequence[str]:
    """What runs a command as somebody who may run the server, and lets him into `folder`."""
    if os.geteuid():
        return ()
    shutil.chown(folder, _NOBODY)
    group = str(folder.stat().st_gid)
    # The kernel forgets whose death a process follows when it changes its user.
    setpriv = shutil.which("setpriv") or "setpriv"
    return (setpriv, "--reuid", _NOBODY, "--regid", group, "--clear-groups", "--pdeathsig", "KILL", "--")


def _binary(name: str) -> str:
    root, _, pattern = DEBIAN.partition("*")
    folders = sorted(map(str, Path(root).glob(f"*{pattern}")), reverse=True)
    program = shutil.which(name, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))
    if program is None:
        raise MissingExtra(f"PostgreSQL is not installed: there is no {name}", hint="apt-get install postgresql")
    return program
