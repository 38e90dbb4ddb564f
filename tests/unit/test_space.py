"""Space that writers reserve: nobody counts on what another one was promised."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.layout import Layout
from prefect_stagegate.cache.leases import Lease, LeaseKind, write_reserved
from prefect_stagegate.cache.space import (
    AHEAD,
    RECORDS,
    SMALL_VOLUME,
    STEP,
    Available,
    Space,
    SpaceRules,
    measure,
    used_bytes,
)
from prefect_stagegate.doors import Source, core_sources
from prefect_stagegate.errors import NoSpace
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import BATCH, stage
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources.adapter import BaseSource, Wanted, everything

LIMIT = 4 * STEP
MANY = 2 * BATCH
"""More objects than are planned at once."""


@pytest.fixture
def writer(cache: Cache) -> Iterator[Lease]:
    with cache.leases.hold(LeaseKind.WRITER, "flights") as lease:
        yield lease


def reserved(cache: Cache) -> dict[str, int]:
    return {lease.dataset: lease.reserved for lease in cache.leases.live()}


def test_two_writers_never_count_on_the_same_bytes(cache: Cache, writer: Lease) -> None:
    mine = Space(cache.layout, SpaceRules(limit=LIMIT), writer)
    mine.claim(3 * STEP)
    assert reserved(cache) == {"flights": 3 * STEP}

    with cache.leases.hold(LeaseKind.WRITER, "planes") as other:
        theirs = Space(cache.layout, SpaceRules(limit=LIMIT), other)
        assert measure(cache.layout, SpaceRules(limit=LIMIT), other).bytes == STEP
        theirs.claim(STEP)
        with pytest.raises(
            NoSpace, match=r"No space left: needs 1 B more, but .*holds 0 B of its limit.*have reserved 201.3 MB"
        ):
            theirs.claim(1)
        assert reserved(cache) == {"flights": 3 * STEP, "planes": STEP}
    mine.claim(STEP)


def test_what_a_killed_writer_reserved_is_free_again(cache: Cache, writer: Lease) -> None:
    script = (
        "import sys; from pathlib import Path; from prefect_stagegate.cache import Cache\n"
        "from prefect_stagegate.cache.leases import LeaseKind\n"
        "from prefect_stagegate.cache.space import Space, SpaceRules\n"
        "cache = Cache.open(Path(sys.argv[1]))\n"
        "with cache.leases.hold(LeaseKind.WRITER, 'planes') as lease:\n"
        "    Space(cache.layout, SpaceRules(limit=int(sys.argv[2])), lease).claim(int(sys.argv[2]))\n"
        "    print('claimed', flush=True); sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", script, str(cache.root), str(LIMIT)]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == b"claimed\n"
    mine = Space(cache.layout, SpaceRules(limit=LIMIT), writer)
    with pytest.raises(NoSpace):
        mine.claim(1)
    holder.kill()
    holder.communicate()
    mine.claim(LIMIT)


def test_what_is_written_is_no_longer_reserved(cache: Cache, writer: Lease) -> None:
    space = Space(cache.layout, SpaceRules(limit=LIMIT), writer)
    space.claim(2 * STEP)
    for _ in range(100):
        space.take(STEP // 50)
    assert 0 < reserved(cache)["flights"] <= STEP


def test_what_was_not_planned_is_claimed_when_it_comes(cache: Cache, writer: Lease) -> None:
    space = Space(cache.layout, SpaceRules(limit=LIMIT), writer)
    space.take(3)
    assert reserved(cache) == {"flights": LIMIT // AHEAD}
    space.take(LIMIT - 3)
    with pytest.raises(NoSpace):
        space.take(LIMIT + 1)


def test_room_is_made_and_only_what_is_missing(cache: Cache, writer: Lease) -> None:
    filler = cache.layout.blobs / "aa"
    filler.mkdir()
    (filler / "old").write_bytes(bytes(8192))
    held = used_bytes(cache.layout)
    calls: list[tuple[int, int, int | None]] = []

    def make_room(size: int, missing: int, available: Available) -> None:
        calls.append((size, missing, available.used))
        (filler / "old").unlink()

    space = Space(cache.layout, SpaceRules(limit=held + 100), writer, make_room)
    space.claim(100)
    assert calls == []
    space.claim(50)
    assert calls == [(50, 50, held)]


def test_a_long_plan_looks_at_the_cache_seldom(cache: Cache, writer: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look asks every blob for its size, so their number must not grow with the number of objects."""
    looks = 0

    def look(layout: Layout) -> int:
        nonlocal looks
        looks += 1
        return used_bytes(layout)

    monkeypatch.setattr("prefect_stagegate.cache.space.used_bytes", look)
    space, claims = Space(cache.layout, SpaceRules(limit=LIMIT), writer), 4096
    for _ in range(claims):
        space.claim(LIMIT // claims)
    assert looks < 80
    assert reserved(cache) == {"flights": LIMIT}
    with pytest.raises(NoSpace):
        space.claim(1)


def test_claim_ahead_leaves_space_to_others(cache: Cache, writer: Lease) -> None:
    mine = Space(cache.layout, SpaceRules(limit=LIMIT), writer)
    mine.claim(STEP)
    mine.claim(1)
    ahead = (LIMIT - STEP) // AHEAD
    assert reserved(cache) == {"flights": STEP + ahead}
    with cache.leases.hold(LeaseKind.WRITER, "planes") as other:
        Space(cache.layout, SpaceRules(limit=LIMIT), other).claim(LIMIT - STEP - ahead)


def test_objects_leave_room_for_the_records_of_the_cache(cache: Cache, writer: Lease) -> None:
    volume = os.statvfs(cache.root)
    records = min(RECORDS, volume.f_blocks * volume.f_frsize // SMALL_VOLUME)
    available = measure(cache.layout, SpaceRules(), writer)
    assert (available.floor, available.bytes) == (records, available.free - records)


def test_the_floor_of_the_volume_stays_free(cache: Cache, writer: Lease) -> None:
    space = Space(cache.layout, SpaceRules(floor=1.0), writer)
    with pytest.raises(NoSpace, match="must stay free") as caught:
        space.claim(1)
    assert "stagegate gc" in caught.value.hint
    assert "lower STAGEGATE_FREE_FLOOR" in caught.value.hint


def test_a_reservation_never_breaks_a_lease(cache: Cache) -> None:
    with cache.leases.hold(LeaseKind.WRITER, "flights", purpose="a" * 700) as lease:
        for size in (0, 10**19, 7):
            write_reserved(cache.layout.leases / lease.id, lease, size)
            assert [(lease.what, lease.reserved) for lease in cache.leases.live()] == [(lease.what, size)]


def test_a_blob_counts_once_while_its_claim_still_names_it(cache: Cache) -> None:
    claim = cache.blobs.claim("one")
    assert claim
    os.write(claim.file, bytes(4096))
    before = used_bytes(cache.layout)
    cache.blobs.commit(claim, "blake3:" + "0" * 64, 4096, sync=False)
    assert used_bytes(cache.layout) == before >= 4096
    claim.drop()
    assert used_bytes(cache.layout) == before


class LongListing(BaseSource):
    """Its listing ends after an object is read."""

    url = identity = "long://listing"

    def __init__(self) -> None:
        self.is_read = threading.Event()

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        yield from (SourceObject(key, 1, Pin("version", "1", "strong")) for key in map(str, range(MANY)) if wanted(key))
        assert self.is_read.wait(30.0)

    def find(self, key: str) -> SourceObject:
        return SourceObject(key, 1, Pin("version", "1", "strong"))

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        self.is_read.set()
        buffer[:] = b"x"[start : listed.size]


def test_copying_begins_at_once_in_ample_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, workspace = LongListing(), open_workspace(tmp_path / "cache", tmp_path / "catalog")
    monkeypatch.setitem(core_sources(), "long", Source("a long listing", {}, ("long",), lambda *_: source))
    assert stage(workspace, {"stagegate": 1, "dataset": "many", "sources": [{"url": source.url}]}).files == MANY
