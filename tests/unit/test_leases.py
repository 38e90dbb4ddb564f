"""Leases that can't be written or read: a claim is never taken for none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.errors import CacheError, NoSpace

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache.open(tmp_path / "cache")


def test_a_lease_that_cannot_be_read_is_not_taken_for_none(cache: Cache) -> None:
    cache.views.publish("things", DIGEST, [])
    pin = cache.leases.pin("things", DIGEST)
    unreadable = cache.layout.leases / pin.id
    unreadable.unlink()
    unreadable.mkdir()  # reading it fails, as on a disk that does
    with pytest.raises(CacheError):
        collect(cache.layout)
    with pytest.raises(CacheError):
        cache.leases.live()
    assert cache.views.path("things", DIGEST)


def test_a_lease_for_which_there_is_no_room_leaves_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace), cache.leases.hold(LeaseKind.WRITER, "things"):
        pass
    assert list(cache.layout.leases.iterdir()) == []
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
