"""What of a source is taken, and where it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prefect_stagegate.errors import SourceError, SpecError
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources.selection.hive_partitions import in_partitions
from prefect_stagegate.sources.selection.object_selection import Selection
from prefect_stagegate.spec import load_spec

NOW = datetime(2013, 6, 15, tzinfo=UTC)


def selection(**keys: Any) -> Selection:
    spec = load_spec({"stagegate": 1, "dataset": "x", "sources": [{"url": "s3://lake/", **keys}]}, known_checks={})
    return Selection(spec.sources[0], NOW)


def an_object(key: str = "a", size: int = 10, age: timedelta | None = timedelta(days=1)) -> SourceObject:
    return SourceObject(key, size, Pin("etag", "x", "strong"), (NOW - age).timestamp() if age else None)


@pytest.mark.parametrize(
    ("conditions", "taken", "left"),
    [
        ({"year": "2013"}, ["year=2013/a", "x/year=2013/m=1/a"], ["year=2014/a", "a", "year=2013"]),
        ({"year": ["2013", 2015]}, ["year=2013/a", "year=2015/a"], ["year=2014/a"]),
        ({"month": 6}, ["month=06/a", "month=6/a"], ["month=16/a"]),
        ({"month": ">=9"}, ["month=09/a", "month=10/a"], ["month=08/a"]),
        ({"day": ">=2013-06-01,<2013-07-01"}, ["day=2013-06-30/a"], ["day=2013-07-01/a", "day=2013-05-31/a"]),
        ({"y": "2013", "m": "<3"}, ["y=2013/m=2/a"], ["y=2013/a", "y=2013/m=3/a", "m=2/a"]),
        ({"city": "New York/NY, USA"}, ["city=New%20York%2FNY, USA/a"], ["city=New York/a"]),
    ],
)
def test_partitions(conditions: dict[str, Any], taken: list[str], left: list[str]) -> None:
    chosen = selection(partitions=conditions)
    assert [key for key in taken + left if chosen.wants(key)] == taken


def test_a_folder_is_entered_that_may_lead_to_wanted_partitions() -> None:
    wanted = {"y": ["2013"], "m": ["6"]}
    assert [in_partitions(key, wanted) for key in ("y=2013/", "y=2014/", "x/")] == [True, False, True]


def test_sizes_are_bounds_that_belong_to_what_is_taken() -> None:
    chosen = selection(min_size="1kB", max_size="2kB")
    assert [size for size in (999, 1000, 2000, 2001) if chosen.takes(an_object(size=size))] == [1000, 2000]


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        ({"newer_than": "2d"}, [1]),
        ({"older_than": "2d"}, [3, 40]),
        ({"newer_than": "30d", "older_than": "2d"}, [3]),
        ({"newer_than": "2013-06-01"}, [1, 3]),
        ({"older_than": "2013-06-12T12:00:00+02:00"}, [3, 40]),
    ],
)
def test_ages_count_from_now_and_dates_in_utc(keys: dict[str, str], taken: list[int]) -> None:
    chosen = selection(**keys)
    assert [days for days in (1, 3, 40) if chosen.takes(an_object(age=timedelta(days=days)))] == taken


def test_an_age_that_nobody_tells_is_an_error_and_no_guess() -> None:
    with pytest.raises(SourceError, match=r"doesn't tell when 'a' changed .*s3://lake/"):
        selection(newer_than="2d").takes(an_object(age=None))


def test_the_first_rename_that_matches_counts() -> None:
    chosen = selection(
        into="flights/",
        rename=[{"from": r"raw/(\d+)-(\d+)\.PARQUET", "to": r"\1/\2.parquet"}, {"from": "raw/(.*)", "to": r"other/\1"}],
    )
    assert [chosen.path(key) for key in ("raw/2013-01.PARQUET", "raw/x", "y/raw/x")] == [
        "flights/2013/01.parquet",
        "flights/other/x",
        "flights/y/raw/x",
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sample": "0%"}, "'0%' is not a share"),
        ({"sample": 1.5}, "must be a share as in 10%, 1/10 or 0.1"),
        ({"limit": 0}, "must be at least 1"),
        ({"newer_than": "yesterday"}, "must be an age as in 30d, or a date as in 2013-06-01"),
        ({"partitions": {"year": []}}, "must be a value or a list of them"),
        ({"partitions": {"year": ">"}}, "'>' is no comparison"),
        ({"rename": [{"from": "(a", "to": "b"}]}, r"from: is no regular expression: missing \)"),
        ({"rename": [{"from": "(?=a)b", "to": "b"}]}, "from: is no regular expression: .* look-around"),
        ({"rename": [{"from": "(a)", "to": r"\2"}]}, "`to` does not fit `from`: invalid group reference 2"),
        ({"min_size": "2kB", "max_size": "1kB"}, "its min_size is more than its max_size"),
        ({"rehash": "sometimes"}, "'sometimes' is not known; known: always, never, when_weak"),
    ],
)
def test_what_takes_nothing_or_says_nothing_is_refused_at_load(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        selection(**keys)
