"""Blobs whose bytes are not on the disk yet: what a power cut, or a disk that fails to write, makes of them."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache, unsynced
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.unsynced import Unsynced
from prefect_stagegate.durable import OpenVolume
from prefect_stagegate.errors import CacheError
from prefect_stagegate.model import Entry

DATA = b"some bytes"
DIGEST = f"blake3:{blake3(DATA).hexdigest()}"


def commit(cache: Cache, data: bytes = DATA, *, sync: bool = False) -> str:
    digest = f"blake3:{blake3(data).hexdigest()}"
    claim = cache.blobs.claim(digest)
    assert claim
    os.pwrite(claim.file, data, 0)
    cache.blobs.commit(claim, digest, len(data), sync=sync)
    claim.drop()
    return digest


def marks(cache: Cache) -> list[Path]:
    return list(cache.layout.ingest.glob(f"{unsynced.PREFIX}*"))


def lose_power(cache: Cache, monkeypatch: pytest.MonkeyPatch, *lost: str) -> Cache:
    """The machine starts again, and the bytes of some blobs never reached the disk, though their sizes did."""
    for digest in lost:
        path = cache.layout.blob(digest)
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
        path.chmod(0o444)
    monkeypatch.setattr(unsynced, "boot_id", lambda: "the next boot")
    return Cache.open(cache.root)


def die(cache: Cache) -> None:
    """Let go of the mark's lock, as a kill does."""
    mark = cache.blobs._unsynced._mark
    assert mark
    mark._close()


def test_the_mark_stands_until_the_blobs_are_synced(cache: Cache) -> None:
    commit(cache, b"large", sync=True)
    assert marks(cache) == [], "it was synced by itself"
    commit(cache)
    commit(cache, b"another")
    assert len(marks(cache)) == 1
    cache.blobs.sync()
    assert marks(cache) == []


def test_blobs_spoilt_by_a_power_cut_go_before_they_are_used(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt, whole = commit(cache), commit(cache, b"written back in time")
    die(cache)
    after = lose_power(cache, monkeypatch, spoilt)
    assert not after.blobs.holds(spoilt, len(DATA))
    assert after.blobs.holds(whole, len(b"written back in time"))
    assert marks(after) == []


def test_nothing_is_read_again_when_all_was_synced(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = commit(cache)
    cache.blobs.sync()
    after = lose_power(cache, monkeypatch, digest)  # which can't be: it shows that nobody looked
    assert after.blobs.holds(digest, len(DATA))


def test_what_a_view_holds_is_not_read_again(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = commit(cache)
    cache.blobs.sync()
    cache.views.publish("things", "sha256:" + "0" * 64, [Entry("a", len(DATA), digest)])
    commit(cache, b"another")
    die(cache)
    after = lose_power(cache, monkeypatch, digest)
    assert after.blobs.holds(digest, len(DATA))


def test_a_killed_writer_s_blobs_are_believed_in_the_same_boot(cache: Cache) -> None:
    digest = commit(cache)
    die(cache)
    after = Cache.open(cache.root)
    assert after.blobs.holds(digest, len(DATA))
    assert len(marks(after)) == 1
    after.blobs.sync()
    assert marks(after) == [], "this sync made them durable too"


def test_a_living_writer_keeps_its_mark(cache: Cache) -> None:
    commit(cache)
    Cache.open(cache.root).blobs.sync()
    assert len(marks(cache)) == 1


def test_mark_is_locked_before_others_see_it(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer syncs while this one makes its mark: it must not take the mark for a dead writer's."""
    lock = fcntl.flock

    def sync_then_lock(file: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            monkeypatch.setattr(fcntl, "flock", lock)
            Unsynced(cache.layout).sync()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", sync_then_lock)
    mine = Unsynced(cache.layout)
    mine.add("blake3:" + "0" * 64)
    assert len(marks(cache)) == 1


def test_a_collection_takes_the_mark_with_the_blobs(cache: Cache) -> None:
    digest = commit(cache)
    die(cache)
    collect(cache.layout)
    assert marks(cache) == []
    assert not cache.layout.blob(digest).exists()


def test_what_the_disk_failed_to_write_is_never_believed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = commit(cache, b"before")
    cache.blobs.sync()
    digest = commit(cache)

    def fail(_: OpenVolume) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(OpenVolume, "sync", fail)
    with pytest.raises(CacheError, match="input/output error"):
        cache.blobs.sync()
    assert not cache.blobs.holds(digest, len(DATA))
    assert cache.blobs.holds(synced, len(b"before"))
    assert len(marks(cache)) == 1


def test_blob_of_another_process_that_can_t_be_noted_is_an_error(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(unsynced, "_Mark", fail)
    with pytest.raises(CacheError, match="note a blob"):
        cache.blobs.add_unsynced(DIGEST)


def test_what_came_in_after_a_failed_sync_is_discarded(cache: Cache) -> None:
    digest = commit(cache)
    cache.blobs.discard_unsynced()
    assert not cache.blobs.holds(digest, len(DATA))
    assert marks(cache)
