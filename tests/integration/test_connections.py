"""Connections that list end with the source that made them, whatever still names it; those that read are shared."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import read


def sockets() -> int:
    found = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(file.readlink()).startswith("socket:")
    return found


def test_a_closed_bucket_has_no_connection_though_a_traceback_names_it_still(seaweedfs: SeaweedFS) -> None:
    bucket = seaweedfs.bucket("connections")
    seaweedfs.client().pipe(f"{bucket}/a", b"a" * 5_000_000)
    first = open_source(f"{bucket}/", seaweedfs.storage_options)
    (listed,) = first.list()
    assert read(first, listed, 0, 10) == b"a" * 10
    first.close()
    time.sleep(1)  # a thread of obstore's closes what it listed by
    before = sockets()
    source = open_source(f"{bucket}/", seaweedfs.storage_options)
    (listed,) = source.list()
    assert read(source, listed, 0, 10) == b"a" * 10
    assert sockets() > before
    source.close()
    until = time.monotonic() + 30
    while sockets() > before and time.monotonic() < until:  # they are closed by another thread
        time.sleep(0.01)
    assert sockets() == before
