"""Connections end with the source that made them, whatever still names it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import SeaweedFS


def sockets() -> int:
    found = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(file.readlink()).startswith("socket:")
    return found


def test_a_closed_bucket_has_no_connection_though_a_traceback_names_it_still(seaweedfs: SeaweedFS) -> None:
    bucket = seaweedfs.bucket("connections")
    seaweedfs.client().pipe(f"{bucket}/a", b"a" * 5_000_000)
    before = sockets()
    source = open_source(f"{bucket}/", seaweedfs.storage_options)
    (listed,) = source.list()
    reading = source.read(listed, 0, listed.size)
    next(reading)
    del reading
    assert b"".join(source.read(listed, 0, 10)) == b"a" * 10
    assert sockets() > before
    source.close()
    until = time.monotonic() + 30
    while sockets() > before and time.monotonic() < until:  # they are closed by another thread
        time.sleep(0.01)
    assert sockets() == before
