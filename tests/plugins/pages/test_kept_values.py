"""What pages keep in memory: bounds, refreshing beside a reader, and copies that never write."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from prefect_stagegate.catalog.records import open_records
from prefect_stagegate.errors import CatalogError
from prefect_stagegate.plugins.pages.copies import CopiedRecords
from prefect_stagegate.plugins.pages.kept import Bounded, Refreshed
from tests.support.records import CountedRecords

HEX = "0" * 64


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as running:
        yield running


def test_least_recently_used_values_are_dropped() -> None:
    kept = Bounded(10)
    for number in range(10):
        kept.put(number, str(number))
    assert kept.get(0) == "0"
    kept.put(10, "10", weight=2)
    assert [number for number in range(11) if kept.get(number)] == [0, 3, 4, 5, 6, 7, 8, 9, 10]


def test_one_large_value_drives_nothing_out() -> None:
    kept = Bounded(10)
    kept.put("small", 1)
    kept.put("large", 2, weight=3)
    assert (kept.get("small"), kept.get("large")) == (1, None)


def test_replaced_value_weighs_once() -> None:
    kept = Bounded(4)
    for _ in range(20):
        kept.put("same", 1)
        kept.put("other", 1)
    assert (kept.get("same"), kept.get("other")) == (1, 1)


def test_older_value_serves_while_a_newer_one_is_read(pool: ThreadPoolExecutor) -> None:
    go, count = threading.Event(), 0

    def read() -> int:
        nonlocal count
        count += 1
        assert count == 1 or go.wait(30)
        return count

    value = Refreshed(read, pool, fresh=0.0, patience=0.05)
    assert value.get() == 1
    assert [value.get() for _ in range(3)] == [1, 1, 1]
    go.set()
    while value.get() == 1:
        time.sleep(0.01)
    assert count <= 5


def test_many_questions_wait_once_for_a_slow_reading(pool: ThreadPoolExecutor) -> None:
    go = threading.Event()
    answers = iter((1, 2))

    def read() -> int:
        answer = next(answers)
        assert answer == 1 or go.wait(30)
        return answer

    value = Refreshed(read, pool, fresh=0.0, patience=0.3)
    assert value.get() == 1
    begun = time.monotonic()
    assert [value.get() for _ in range(100)] == [1] * 100
    assert 0.2 < time.monotonic() - begun < 3
    go.set()


def test_slow_reading_rests_longer(pool: ThreadPoolExecutor) -> None:
    count = 0

    def read() -> int:
        nonlocal count
        count += 1
        time.sleep(0.2)
        return count

    value = Refreshed(read, pool, fresh=0.0)
    assert value.get() == 1
    time.sleep(0.1)
    assert value.get() == 1
    assert count == 1


def test_value_outlives_a_store_that_fails_for_a_while(pool: ThreadPoolExecutor) -> None:
    answers = iter([1])

    def read() -> int:
        for answer in answers:
            return answer
        raise CatalogError("The store does not answer")

    value = Refreshed(read, pool, fresh=0.0, stale=0.3)
    assert value.get() == 1
    assert value.get() == 1
    time.sleep(0.35)
    with pytest.raises(CatalogError, match="does not answer"):
        value.get()


def test_first_value_is_waited_for_and_its_error_is_raised(pool: ThreadPoolExecutor) -> None:
    def fail() -> int:
        raise CatalogError("The store does not answer")

    with pytest.raises(CatalogError):
        Refreshed(fail, pool, fresh=1.0).get()


def test_unchanging_records_are_read_once() -> None:
    store = CountedRecords(open_records("memory://copies-once", {}))
    key = f"datasets/things/evidence/{HEX}/00000001.json"
    store.create(key, b"[]")
    store.replace("nodes/gpu-1.json", b"{}")
    copies = CopiedRecords(store)
    assert [copies.read(key) for _ in range(3)] == [b"[]"] * 3
    assert copies.read_end(key, 1) == b"]"
    assert store.calls["read"] == 1
    assert [copies.read("nodes/gpu-1.json") for _ in range(3)] == [b"{}"] * 3
    assert store.calls["read"] == 4
    assert copies.read(f"datasets/things/evidence/{HEX}/00000002.json") is None


def test_copies_list_as_the_store_does() -> None:
    store = open_records("memory://copies-list", {})
    for key in (
        "format",
        *(f"datasets/things/evidence/{HEX}/0000000{number}.json" for number in (1, 2)),
        f"datasets/things/decisions/{HEX}/pilot/00000001.json",
        f"datasets/things/decisions/{HEX}/pilot-2/00000001.json",
        "datasets/things/refs/latest/00000001.json",
        "datasets/things-2/refs/latest/00000001.json",
        "nodes/gpu-1.json",
    ):
        store.create(key, b"{}")
    copies = CopiedRecords(store)
    for prefix in (
        *("datasets/things/", f"datasets/things/evidence/{HEX}/", f"datasets/things/decisions/{HEX}/pilot/", "nodes/"),
        *("datasets/things/refs/", "datasets/none/", "datasets/things/evidence/", "datasets/things-2/"),
    ):
        assert list(copies.keys(prefix)) == list(store.keys(prefix))
        after = f"datasets/things/evidence/{HEX}/00000001.json"
        assert list(copies.keys(prefix, after)) == list(store.keys(prefix, after))
        assert copies.folders(prefix) == store.folders(prefix)
    assert copies.folders("datasets/") == ["things", "things-2"]


def test_copies_never_write() -> None:
    store = open_records("memory://copies-write", {})
    copies = CopiedRecords(store)
    for write in (copies.create, copies.replace):
        with pytest.raises(CatalogError, match="only read"):
            write("nodes/gpu-1.json", b"{}")
    assert store.read("nodes/gpu-1.json") is None
