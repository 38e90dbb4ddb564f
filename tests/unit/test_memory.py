"""The pin memory: what it knows, and when it must not be believed."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefect_stagegate.cache import memory as module
from prefect_stagegate.cache.memory import PinMemory, is_racy
from prefect_stagegate.model import Pin, SourceObject

DIGEST, OTHER = "blake3:" + "0a" * 32, "blake3:" + "0b" * 32
PIN = Pin("etag", "abc", "strong")
OBJECT = SourceObject("a.bin", 3, PIN)
ROW = ("s3://lake/", "a.bin", PIN, 3, DIGEST)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


def recalled(memory: PinMemory, listed: SourceObject = OBJECT, identity: str = "s3://lake/") -> str | None:
    (digest,) = memory.recall_many([(identity, listed)])
    return digest


def reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "boot_id", lambda: "the next boot")


def test_a_pin_is_remembered_by_whoever_opens_the_memory(path: Path) -> None:
    PinMemory(path).remember([ROW])
    assert recalled(PinMemory(path)) == DIGEST


@pytest.mark.parametrize(
    ("listed", "identity"),
    [
        (OBJECT, "s3://other/"),
        (SourceObject("b.bin", 3, PIN), "s3://lake/"),
        (SourceObject("a.bin", 4, PIN), "s3://lake/"),
        (SourceObject("a.bin", 3, Pin("etag", "abd", "strong")), "s3://lake/"),
        (SourceObject("a.bin", 3, Pin("version", "abc", "strong")), "s3://lake/"),
    ],
    ids=["source", "key", "size", "pin", "kind"],
)
def test_nothing_is_recalled_when_anything_differs(path: Path, listed: SourceObject, identity: str) -> None:
    memory = PinMemory(path)
    memory.remember([ROW])
    assert recalled(memory, listed, identity) is None


def test_answers_come_in_the_order_of_the_questions(path: Path) -> None:
    memory = PinMemory(path)
    memory.remember([ROW, ("s3://lake/", "c", PIN, 1, OTHER)])
    objects = [("s3://lake/", SourceObject(key, size, PIN)) for key, size in (("c", 1), ("b", 1), ("a.bin", 3))]
    assert memory.recall_many(objects) == [OTHER, None, DIGEST]
    assert memory.recall_many([]) == []


def test_both_contents_of_an_object_that_went_back_are_known(path: Path) -> None:
    memory, newer = PinMemory(path), Pin("etag", "def", "strong")
    memory.remember([ROW])
    memory.remember([("s3://lake/", "a.bin", newer, 3, OTHER)])
    assert (recalled(memory), recalled(memory, SourceObject("a.bin", 3, newer))) == (DIGEST, OTHER)


def test_what_no_sync_followed_is_not_believed_after_a_reboot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = PinMemory(path)

    def sync() -> bool:
        memory.remember([ROW])  # written while the sync ran: nobody knows whether it was included
        return True

    memory.confirm(sync)
    assert recalled(PinMemory(path)) == DIGEST
    reboot(monkeypatch)
    assert recalled(PinMemory(path)) is None


def test_what_a_sync_followed_is_believed_after_a_reboot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = PinMemory(path)
    memory.remember([ROW])
    memory.confirm(lambda: True)
    reboot(monkeypatch)
    assert recalled(PinMemory(path)) == DIGEST


def test_unsynced_memory_is_not_believed_after_a_reboot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = PinMemory(path)
    memory.remember([ROW])
    memory.confirm(lambda: False)
    reboot(monkeypatch)
    assert recalled(PinMemory(path)) is None


def test_what_a_catalog_taught_is_believed_always(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PinMemory(path).learn([ROW])
    reboot(monkeypatch)
    assert recalled(PinMemory(path)) == DIGEST


def test_forgetting_drops_every_row_of_a_digest(path: Path) -> None:
    memory = PinMemory(path)
    memory.remember([ROW, ("s3://lake/", "b", PIN, 3, OTHER)])
    memory.forget([DIGEST])
    assert recalled(memory) is None
    assert recalled(memory, SourceObject("b", 3, PIN)) == OTHER


@pytest.mark.parametrize("damage", ["garbage", "truncated", "overwritten"])
def test_a_damaged_memory_starts_empty_and_works(path: Path, damage: str) -> None:
    memory = PinMemory(path)
    memory.remember(("s3://lake/", f"{number}", PIN, 3, DIGEST) for number in range(2000))
    memory.close()
    data = path.read_bytes()
    spoilt = {"garbage": b"garbage" * 1000, "truncated": data[: len(data) // 2]}
    path.write_bytes(spoilt.get(damage, data[:4096] + b"\xff" * 40_000 + data[44_096:]))
    memory = PinMemory(path)
    memory.recall_many([("s3://lake/", SourceObject(f"{number}", 3, PIN)) for number in range(2000)])
    memory.remember([ROW])
    assert recalled(memory) == DIGEST
    assert recalled(PinMemory(path)) == DIGEST


def test_a_memory_that_cannot_be_written_serves_this_process(tmp_path: Path) -> None:
    memory = PinMemory(tmp_path / "no such folder" / "index.sqlite")
    memory.remember([ROW])
    assert recalled(memory) == DIGEST


def test_memory_that_stays_locked_costs_only_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.05)
    memory = PinMemory(path)
    memory.remember([ROW])
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    assert recalled(memory) is None
    memory.remember([ROW])
    other.rollback()
    assert recalled(memory) == DIGEST


def test_other_writers_are_noticed(path: Path) -> None:
    memory, other = PinMemory(path), PinMemory(path)
    memory.remember([ROW])
    memory.remember([ROW])
    assert not memory.shared
    other.remember([ROW])
    memory.remember([ROW])
    assert memory.shared


def test_a_reader_notices_other_writers_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    memory, other = PinMemory(path), PinMemory(path)
    assert not memory.shared
    other.remember([ROW])
    assert memory.shared


@pytest.mark.parametrize(
    ("pin", "modified", "racy"),
    [
        (PIN, 1000.0, False),
        (Pin("mtime", "1", "weak"), 990.0, False),
        (Pin("mtime", "1", "weak"), 999.0, True),
        (Pin("mtime", "1", "weak"), 999.5, False),
        (Pin("mtime", "1", "weak"), 999.99, True),
        (Pin("size", "3", "weak"), None, True),
        (Pin("etag", "a", "weak"), None, False),
        (Pin("etag", "W/a", "weak"), None, True),
    ],
    ids=["strong", "old", "whole seconds", "fractions", "just now", "no time", "etag", "weak etag"],
)
def test_a_weak_pin_that_is_too_young_is_racy(pin: Pin, modified: float | None, *, racy: bool) -> None:
    assert is_racy(SourceObject("a", 3, pin, modified), read_at=1000.0) is racy


def test_a_memory_that_nobody_has_any_more_closes_its_database(path: Path) -> None:
    memory = PinMemory(path)
    database = memory._database
    del memory
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")


def test_pin_s_size_is_known_while_the_pin_is_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = PinMemory(path)
    memory.remember([ROW])
    assert memory.size("s3://lake/", "a.bin", PIN) == 3
    assert memory.size("s3://other/", "a.bin", PIN) is None
    assert memory.size("s3://lake/", "b.bin", PIN) is None
    assert memory.size("s3://lake/", "a.bin", Pin("version", "abc", "strong")) is None
    reboot(monkeypatch)
    assert PinMemory(path).size("s3://lake/", "a.bin", PIN) is None


@pytest.mark.parametrize("name", ["index.sqlite", "index.sqlite-journal"])
def test_a_pipe_in_the_memorys_place_stops_nobody(tmp_path: Path, name: str) -> None:
    PinMemory(tmp_path / "index.sqlite").note("place", "before")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)  # SQLite waited for whoever would write into it
    memory = PinMemory(tmp_path / "index.sqlite")
    memory.note("place", "here")
    assert memory.noted("place") == "here"


def test_counters_add_up_over_processes_and_threads(path: Path) -> None:
    memories = [PinMemory(path) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda memory: [memory.count([("jobs", ("a",), 1.0)]) for _ in range(20)], memories))
    assert PinMemory(path).counted() == [("jobs", '["a"]', 60.0)]


def test_labels_beyond_the_bound_are_counted_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LABELS", 3)
    memory = PinMemory(path)
    memory.count(("jobs", (str(number), "x"), 1.0) for number in range(10))
    memory.count([("jobs", ("1", "x"), 1.0)])
    counted = {labels: value for _, labels, value in memory.counted()}
    assert counted == {'["0", "x"]': 1.0, '["1", "x"]': 2.0, '["2", "x"]': 1.0, '["_other", "_other"]': 7.0}


def test_memory_of_an_earlier_release_gets_counters(path: Path) -> None:
    PinMemory(path).remember([ROW])
    with sqlite3.connect(path) as database:
        database.executescript("DROP TABLE counters; PRAGMA user_version = 2")
    memory = PinMemory(path)
    memory.count([("jobs", (), 2.0)])
    assert memory.counted() == [("jobs", "[]", 2.0)]
    assert recalled(memory) == DIGEST


def test_counting_after_the_end_keeps_the_memory(path: Path) -> None:
    memory = PinMemory(path)
    memory.remember([ROW])
    memory.close()
    memory.count([("jobs", (), 1.0)])
    assert recalled(PinMemory(path)) == DIGEST
