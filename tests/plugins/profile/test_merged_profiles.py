"""Profiles of files merge into that of their table, in any order."""

from __future__ import annotations

import bisect
import math
import random
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.plugins.profile.combine import combine, mixture
from prefect_stagegate.plugins.profile.profiles import LEVELS, ColumnProfile, TableProfile
from prefect_stagegate.plugins.profile.sketch import estimate, sketch_of, union

# Python counts 0.0 and -0.0 as equal values, and they are written differently; the sum makes one of both.
NUMBERS = st.floats(-1e6, 1e6).map(lambda value: value + 0.0)
files = st.lists(st.lists(NUMBERS, min_size=1, max_size=60), min_size=1, max_size=6)


def quantiles(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[math.ceil((level + 0.5) / LEVELS * len(ordered)) - 1] for level in range(LEVELS)]


@given(files, st.randoms())
def test_quantiles_of_files_are_the_tables_within_half_a_share(files: list[list[float]], chance: random.Random) -> None:
    parts = [(quantiles(values), len(values)) for values in files]
    merged = mixture(parts)
    rows = sorted(value for values in files for value in values)
    for level, point in enumerate(merged):
        rank = (level + 0.5) / LEVELS
        below, up_to = bisect.bisect_left(rows, point) / len(rows), bisect.bisect_right(rows, point) / len(rows)
        assert below - 0.5 / LEVELS - 1e-9 <= rank <= up_to + 0.5 / LEVELS + 1e-9
    chance.shuffle(parts)
    assert mixture(parts) == merged


def profile(values: Sequence[float]) -> TableProfile:
    column = ColumnProfile(
        "DOUBLE",
        "number",
        values=len(values),
        distinct=len(set(map(repr, values))),
        least=min(values),
        greatest=max(values),
        mean=statistics.fmean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        quantiles=tuple(quantiles(values)),
        counts={repr(value): values.count(value) for value in values},
        sketch=sketch_of(hash(value) & (2**64 - 1) for value in values),
    )
    return TableProfile(len(values), {"x": column})


@given(files, st.randoms())
def test_merged_figures_are_those_of_all_rows(files: list[list[float]], chance: random.Random) -> None:
    profiles = [profile(values) for values in files]
    merged = combine(profiles).columns["x"]
    rows = [value for values in files for value in values]
    whole = profile(rows).columns["x"]
    assert (merged.values, merged.least, merged.greatest) == (whole.values, whole.least, whole.greatest)
    assert (merged.counts, merged.distinct) == (whole.counts, len(set(map(repr, rows))))
    assert merged.mean == pytest.approx(whole.mean, abs=1e-6)
    assert merged.deviation == (None if whole.deviation is None else pytest.approx(whole.deviation, abs=1e-3))
    chance.shuffle(profiles)
    assert combine(profiles).columns["x"] == merged


@given(st.integers(0, 2**32), st.integers(1, 5_000), st.integers(1, 5))
def test_sketches_of_parts_count_their_values_together(seed: int, distinct: int, parts: int) -> None:
    chance = random.Random(seed)
    hashes = [chance.getrandbits(64) for _ in range(distinct)]
    # Each part has half of the values, so parts share many.
    sketches = [sketch_of([*chance.sample(hashes, distinct // 2), *hashes[part::parts]]) for part in range(parts)]
    assert union(sketches) == sketch_of(hashes)
    assert estimate(union(sketches)) == pytest.approx(distinct, rel=0.2, abs=3)
