"""Samples and limits take the same objects whatever is listed how, and smaller ones lie in larger ones."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources.selection.object_selection import BITS, Selection, rank, sampled
from prefect_stagegate.spec import load_spec

keys = st.lists(st.text(st.characters(exclude_characters="/", codec="utf-8"), min_size=1), unique=True, max_size=60)
shares = st.integers(1, 100)
limits = st.integers(1, 70)


def taken(listing: list[str], into: str = "", **keys: Any) -> set[str]:
    """The paths that a source with these keys gives to the dataset."""
    spec = load_spec(
        {"stagegate": 1, "dataset": "x", "sources": [{"url": "s3://lake/", "into": into, **keys}]}, known_checks={}
    )
    selection = Selection(spec.sources[0], datetime.now(UTC))
    objects = [SourceObject(key, 1, Pin("etag", key, "strong")) for key in listing]
    return {selection.path(obj.key) for obj in selection.taken(objects)}


@given(keys, shares, st.randoms())
def test_a_sample_is_the_same_however_it_is_listed(listing: list[str], percent: int, random: Random) -> None:
    shuffled = random.sample(listing, len(listing))
    assert taken(listing, sample=f"{percent}%") == taken(shuffled, sample=f"{percent}%")


@given(keys, shares, shares)
def test_a_smaller_sample_lies_in_a_larger_one_and_in_the_whole(listing: list[str], percent_a: int, other: int) -> None:
    small, large = (taken(listing, sample=f"{percent}%") for percent in sorted((percent_a, other)))
    assert small <= large <= taken(listing)
    assert taken(listing, sample="100%") == taken(listing)


@given(keys, limits, limits, st.randoms())
def test_a_limit_takes_the_smallest_ranks(listing: list[str], limit: int, other: int, random: Random) -> None:
    few, more = sorted((limit, other))
    assert taken(random.sample(listing, len(listing)), limit=few) == set(sorted(listing, key=rank)[:few])
    assert taken(listing, limit=few) <= taken(listing, limit=more)


@given(keys, keys, shares)
def test_what_else_is_there_changes_nothing_for_a_path(listing: list[str], others: list[str], percent: int) -> None:
    both = list(dict.fromkeys(listing + others))
    assert taken(listing, sample=f"{percent}%") == taken(both, sample=f"{percent}%") & set(listing)


@given(keys, shares)
def test_where_an_object_lies_at_its_source_decides_nothing(listing: list[str], percent: int) -> None:
    moved = [f"elsewhere/{key}" for key in listing]
    renamed = taken(moved, "in/", sample=f"{percent}%", rename=[{"from": "(?s)elsewhere/(.*)", "to": r"\1"}])
    assert renamed == taken(listing, "in/", sample=f"{percent}%")


def test_a_share_of_many_paths_is_about_that_many() -> None:
    paths = [f"flights/{number:06}.parquet" for number in range(20_000)]
    assert abs(sum(sampled(path, Fraction(1, 10)) for path in paths) - 2000) < 200
    assert all(0 <= rank(path) < 1 << BITS for path in paths[:100])
