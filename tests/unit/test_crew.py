"""How many threads share the work: more while they wait, fewer while they only take the interpreter from each other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.model import SourceObject
from prefect_stagegate.testing.scripted import ScriptedSource, fetch_all
from prefect_stagegate.transfer import Limits
from prefect_stagegate.transfer.crew import FIRST, LAST, LEAST, Crew

MOST = 8
SECONDS = 20.0


class Loop:
    """Work that goes on until it is told to end, and knows how many do it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.crew = Crew(self._work, MOST, self.ended.set)
        self._over = False
        self._lock = threading.Lock()
        self._threads = 0

    def _work(self) -> None:
        with self._lock:
            self._threads += 1
        while not self._over and not self.crew.is_superfluous():
            time.sleep(0.001)
        with self._lock:
            self._threads -= 1

    def wait_for(self, threads: int) -> None:
        """Wait until so many are at work."""
        until = time.monotonic() + SECONDS
        while self._threads != threads:
            assert time.monotonic() < until, self._threads
            time.sleep(0.001)

    def end(self) -> None:
        self._over = True


@contextmanager
def running() -> Iterator[Loop]:
    loop = Loop()
    loop.crew.begin()
    try:
        loop.wait_for(1)
        yield loop
    finally:
        loop.end()
        assert loop.ended.wait(SECONDS)


def test_an_idle_interpreter_gets_twice_as_many_and_a_busy_one_half() -> None:
    with running() as loop:
        for threads in (2, 4, 8, 8):
            loop.crew.adjust(0.3, needed=True, asks_ahead=False)
            loop.wait_for(threads)
        loop.crew.adjust(0.8, needed=True, asks_ahead=False)
        loop.wait_for(8)
        for threads in (4, 2, 1, 1):
            loop.crew.adjust(1.1, needed=True, asks_ahead=False)
            loop.wait_for(threads)
        assert not loop.ended.is_set()
        loop.crew.adjust(0.3, needed=True, asks_ahead=False)
        loop.wait_for(2)


def test_where_a_source_can_be_asked_ahead_that_comes_before_further_threads() -> None:
    crew = Crew(lambda: None, 2 * LAST, lambda: None)
    assert crew.ahead == FIRST
    crew.adjust(0.1, needed=True, asks_ahead=True)
    assert (crew.ahead, crew.crowded) == (LAST, False)


def test_threads_that_ask_ahead_and_wait_all_the_same_get_company() -> None:
    with running() as loop:
        assert loop.crew.ahead == 6  # of 8, so that another can join
        loop.crew.adjust(0.1, needed=True, asks_ahead=True)
        for _ in range(3):
            loop.crew.adjust(0.5, needed=True, asks_ahead=True)
            time.sleep(0.02)
            loop.wait_for(1)
        for _ in range(3):
            loop.crew.adjust(0.1, needed=True, asks_ahead=True)
            loop.wait_for(MOST // LEAST)
        assert loop.crew.ahead == LEAST


def test_threads_and_what_they_ask_for_are_never_more_than_may_be_in_flight() -> None:
    with running() as loop:
        assert [loop.crew.reserve(one) for one in (5, 5, 5)] == [5, 2, 0]
        loop.crew.complete()
        time.sleep(0.02)
        loop.wait_for(1)
        loop.crew.settle(3)
        loop.wait_for(MOST - 3)
        assert loop.crew.reserve(1) == 0
        loop.crew.settle(0)
        loop.wait_for(MOST)
        assert (loop.crew.ahead, loop.crew.reserve(1)) == (1, 0)


def test_nobody_joins_who_finds_nothing_to_do() -> None:
    with running() as loop:
        loop.crew.adjust(0.0, needed=False, asks_ahead=False)
        time.sleep(0.05)
        loop.wait_for(1)


def test_a_crew_that_was_completed_stays_so() -> None:
    with running() as loop:
        loop.crew.complete()
        loop.wait_for(MOST)
        time.sleep(0.05)
        loop.crew.look(needed=False, asks_ahead=False)
        loop.wait_for(MOST)


def test_who_joins_when_all_have_ended_does_nothing() -> None:
    with running() as loop:
        loop.end()
        assert loop.ended.wait(SECONDS)
        loop.crew.adjust(0.0, needed=True, asks_ahead=False)
        loop.crew.complete()
        loop.crew.join(time.monotonic() + SECONDS)
        loop.wait_for(0)


@pytest.mark.parametrize("size", [100, 100_000])
def test_from_a_source_that_lets_wait_as_many_are_read_at_once_as_may(tmp_path: Path, size: int) -> None:
    source, threads = ScriptedSource({f"{number:03}": bytes(size) for number in range(96)}), 16
    reached = threading.Event()
    together = threading.Barrier(threads, reached.set)
    source.on_read = lambda *_: reached.is_set() or together.wait(SECONDS)

    list(fetch_all(source, Cache.open(tmp_path / "cache"), limits=Limits(in_flight=threads)))

    assert reached.is_set()


class AskedAhead(ScriptedSource):
    """Counts what is under way: asked for, or read."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(contents)
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self.most = 0
        self.readers: set[int] = set()

    def ask_ahead(self, soon: Sequence[SourceObject]) -> bool:
        with self._lock:
            self._under_way.update({one.key: 1 for one in soon})
            self._count()
        return True

    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[bytes]:
        with self._lock:
            self.readers.add(threading.get_ident())
            self._under_way[listed.key] = 1
            self._count()
        time.sleep(0.002)
        yield from super().read(listed, start, end)
        with self._lock:
            del self._under_way[listed.key]

    def _count(self) -> None:
        self.most = max(self.most, len(self._under_way))


@pytest.mark.parametrize("in_flight", [1, 2, 5, 16, 64])
def test_no_more_is_under_way_than_may_be_when_larger_objects_follow(tmp_path: Path, in_flight: int) -> None:
    sizes = [100] * 200 + [100_000] * 100 + [100] * 100
    source = AskedAhead({f"{number:03}": bytes(size) for number, size in enumerate(sizes)})

    list(fetch_all(source, Cache.open(tmp_path / "cache"), limits=Limits(in_flight=in_flight)))

    assert source.most <= in_flight


def test_one_that_stands_still_holds_nobody_up_but_what_it_asked_for(tmp_path: Path) -> None:
    source = AskedAhead({f"{number:03}": bytes(100) for number in range(400)})
    others = threading.Event()

    def stand_still(key: str, *_: object) -> None:
        if key == "010":
            others.wait(SECONDS)
        elif len(source.readers) > 1:
            others.set()

    source.on_read = stand_still
    list(fetch_all(source, Cache.open(tmp_path / "cache"), limits=Limits(in_flight=64)))

    assert others.is_set()
