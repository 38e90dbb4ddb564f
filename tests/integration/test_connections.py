"""Connections that list end with the source that made them, whatever still names it; those that read are shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import read
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually

ESTABLISHED = "01"
"""As the kernel writes it: include/net/tcp_states.h."""


def connections(url: str) -> int:
    """How many connections there are to a server on this machine."""
    port = f":{urlsplit(url).port:04X}"
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(remote.endswith(port) and state == ESTABLISHED for _, _, remote, state, *_ in rows)


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultProxy]:
    """A server that no other test has connections to."""
    with FaultProxy(seaweedfs.endpoint_url) as proxy:
        yield proxy


def test_closed_bucket_has_no_connection_despite_a_traceback(seaweedfs: SeaweedFS, proxy: FaultProxy) -> None:
    bucket = seaweedfs.bucket("connections")
    seaweedfs.client().pipe(f"{bucket}/a", b"a" * 5_000_000)
    options = {**seaweedfs.storage_options, "endpoint_url": proxy.url}
    source = open_source(f"{bucket}/", options)
    (listed,) = source.list()
    listing = connections(proxy.url)
    assert listing
    assert read(source, listed, 0, 10) == b"a" * 10
    reading = connections(proxy.url) - listing
    assert reading
    source.close()
    eventually(lambda: connections(proxy.url) <= reading, 30)  # they are closed by another thread
    assert connections(proxy.url) == reading
