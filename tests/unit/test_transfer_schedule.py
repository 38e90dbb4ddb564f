"""What the threads of a transfer are given to do, and what is durable while they do it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import prefect_stagegate.transfer as under_test
from prefect_stagegate.cache import Cache
from prefect_stagegate.model import Action, Pin, PlannedObject, SourceObject
from prefect_stagegate.testing.scripted import ScriptedSource, fetch_all
from prefect_stagegate.transfer.buffers import Buffers
from prefect_stagegate.transfer.job import Job
from prefect_stagegate.transfer.schedule import TURN, Schedule, Share
from prefect_stagegate.transfer.stop import Stop

SMALL, THREADS, RUN = 10, 4, 8
SOURCE = ScriptedSource({})


def job(number: int, size: int = 1) -> Job:
    listed = SourceObject(str(number), size, Pin("etag", str(number), "strong"))
    return Job(PlannedObject(str(number), listed, 0, Action.FETCH), (SOURCE,), listed=listed)


def schedule(*sizes: int) -> Schedule:
    made = Schedule(Buffers(4, 4096), SMALL, lambda _: Share(THREADS, RUN), Stop(None))
    for number, size in enumerate(sizes):
        made.add(job(number, size))
    made.complete()
    return made


def names(work: object) -> list[str]:
    assert isinstance(work, list)
    return [one.planned.path for one in work]


def test_small_objects_come_in_runs_that_grow_shorter_towards_the_end() -> None:
    made = schedule(*[1] * (RUN * THREADS * 2))
    lengths = []
    while (work := made.next()) is not None:
        lengths.append(len(names(work)))
        made.rest()

    assert sum(lengths) == RUN * THREADS * 2
    assert lengths[0] == RUN
    assert lengths[-THREADS:] == [1] * THREADS
    assert lengths == sorted(lengths, reverse=True)


def test_a_run_ends_before_a_large_object() -> None:
    made = schedule(*[1, 1, SMALL + 1], *[1] * 100)

    assert names(made.next()) == ["0", "1"]
    large = made.next()
    assert isinstance(large, Job)
    assert large.planned.path == "2"


def test_who_has_some_small_objects_left_is_given_the_rest_of_a_share_and_no_large_ones_or_those_of_others() -> None:
    made = schedule(*[1] * 20, SMALL + 1, *[1] * 20)
    names(made.next())

    assert made.more(RUN) == []
    assert made.more(RUN - RUN // TURN + 1) == []
    assert [one.planned.path for one in made.more(RUN - 4)] == ["8", "9", "10", "11"]
    assert [one.planned.path for one in made.more(0)] == ["12", "13", "14", "15", "16", "17", "18"]
    assert [one.planned.path for one in made.more(0)] == ["19"]
    assert made.more(0) == []
    assert schedule(*[1] * (THREADS - 1)).more(0) == []


def test_a_run_has_the_objects_of_one_source() -> None:
    made = schedule(*[1] * 100)
    other = Job(job(100).planned, (ScriptedSource({}),))
    made.again(other)

    assert names(made.next()) == ["100"]


def test_what_came_in_is_durable_long_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut costs what came in since the last sync; the pin memory knows what that is."""
    monkeypatch.setattr(under_test, "UNSYNCED", 5_000)
    monkeypatch.setattr(under_test, "BATCH", 10)
    objects = {f"{number:03}": bytes(1000) + str(number).encode() for number in range(100)}
    cache = Cache.open(tmp_path / "cache")

    run = fetch_all(ScriptedSource(objects), cache)
    received = [next(run) for _ in range(60)]

    database = sqlite3.connect(cache.layout.index)
    (durable,) = database.execute("SELECT count(*) FROM pins WHERE durable").fetchone()
    database.close()
    run.close()
    assert len(received) == 60
    assert 40 <= durable < 100
