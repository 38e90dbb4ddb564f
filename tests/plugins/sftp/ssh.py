"""Real SFTP servers on the loopback interface: OpenSSH's, from Debian, and rclone's, from PyPI.

Each makes keys of its own, so that tests neither use nor change those of the user.
"""

from __future__ import annotations

import getpass
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port

SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user.pub
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin prohibit-password
PerSourcePenalties no
AllowTcpForwarding yes
MaxStartups 10:30:100
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""


@dataclass(frozen=True, slots=True)
class SshServer:
    """A running server: where it answers, and what opens it."""

    port: int
    user: str
    folder: Path
    """Has its keys: `host`, `user`, and `stranger`, which opens nothing; and `known_hosts`, which has it only."""
    pid: int

    @property
    def options(self) -> dict[str, str]:
        """What opens it, as storage options."""
        return {
            "username": self.user,
            "key_filename": str(self.folder / "user"),
            "known_hosts": str(self.folder / "known_hosts"),
        }

    def url(self, path: str) -> str:
        """The URL of a path on it, which begins with a slash."""
        return f"sftp://127.0.0.1:{self.port}{path}"


@contextmanager
def sshd(folder: Path, *, user: str = "") -> Iterator[SshServer]:
    """Run OpenSSH's server, which serves this machine's files, for as long as the block runs.

    Args:
        folder: For its keys and its log. `user` must be able to reach it.
        user: Who is let in, whatever his shell; needs root. Empty for who runs this.

    Raises:
        MissingExtra: There is no `sshd`.
        SourceUnavailable: It didn't start.
    """
    command = _command("sshd", "Install it: apt-get install openssh-server")
    Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself up before it knows who asks
    with _server(folder, lambda port: [command, "-D", "-e", "-f", _configured(folder, port)], user) as server:
        yield server


@contextmanager
def rclone_sftp(folder: Path, served: Path, *, password: str = "") -> Iterator[SshServer]:
    """Run rclone's SFTP server, which serves the folder `served` as `/`, for as long as the block runs.

    Args:
        folder: For its keys and its log.
        served: What it serves.
        password: Opens it for the same user in place of the key.

    Raises:
        MissingExtra: There is no `rclone`.
        SourceUnavailable: It didn't start.
    """
    command = [_command("rclone", "Run `make setup`."), "--config=/dev/null", "serve", "sftp", str(served)]
    user = (
        [f"--user={getpass.getuser()}", f"--pass={password}"] if password else [f"--authorized-keys={folder}/user.pub"]
    )
    flags = [*user, f"--key={folder}/host", "--dir-cache-time=0s"]
    with _server(folder, lambda port: [*command, *flags, f"--addr=127.0.0.1:{port}"]) as server:
        yield server


@contextmanager
def _server(folder: Path, command: Callable[[int], list[str]], user: str = "") -> Iterator[SshServer]:
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    for name in ("host", "user", "stranger"):
        write_key(folder / name)
    host = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
    with launched(command(port), folder / "server.log", lambda: _listens(port)) as process:
        yield SshServer(port, user or getpass.getuser(), folder, process.pid)


def write_key(path: Path) -> None:
    """Make a new Ed25519 key: `path`, and `path.pub`."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path)
    path.chmod(0o600)
    key.write_public_key(path.with_name(path.name + ".pub"))


def _configured(folder: Path, port: int) -> str:
    path = folder / "sshd_config"
    path.write_text(SSHD.format(port=port, folder=folder))
    return str(path)


def _command(name: str, hint: str) -> str:
    places = f"{Path(sys.executable).parent}:/usr/sbin"
    program = shutil.which(name, path=places) or shutil.which(name)
    if program is None:
        raise MissingExtra(f"There is no {name!r} command", hint=hint)
    return program


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
